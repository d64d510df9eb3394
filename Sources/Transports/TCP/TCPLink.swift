import Glibc
import PacketIO

/// A worker's end of the TCP transport.
///
/// Sending: 1. `send` queues each train at its path's stream, dialling where there is none; 2. `StreamSends` makes one
/// gathered send of what waits for a stream, of which one is in flight at a time; 3. `completeSend` takes what has
/// gone out of the queue.
/// Receiving (`TCPLink+Receive.swift`): 1. a completion brings a read; 2. `RecordCarry` joins it with what the read
/// before had begun; 3. `RecordFramer` finds runs of records, which are passed on where they lie.
final class TCPLink: TransportLink {
  enum Kind: UInt8 {
    case accept, connect, receive, send, resume
    case cancellation = 0xFF
  }

  /// In tags of paths that are dialled: the rest tells streams to one place from each other.
  static let lane: UInt64 = 1 << 63
  /// Nanoseconds between two looks at deadlines.
  private static let sweepInterval: UInt64 = 100_000_000

  let index: UInt8
  let owner: UInt8
  let limits: TCPTransport.Limits
  private let encryption: StreamEncryption?
  private var listeners: [StreamListener]
  var streams: StreamTable
  private var destinations: Destinations
  private var sends: StreamSends
  var carries: RecordCarry
  var reads: StreamReads
  var web: WebFront
  private var nextSweep: MonotonicTime
  var figures = TCPFigures()

  init(
    listeners: [TCPSocket], index: UInt8, limits: TCPTransport.Limits, receiveBuffers: Int,
    announcement: RunAnnouncement? = nil, encryption: StreamEncryption? = nil, io: inout WorkerIO
  ) {
    self.encryption = encryption
    let server = encryption?.webServer
    web = WebFront(server: server, owner: server == nil ? 0 : io.claimOwner())
    self.index = index
    owner = io.claimOwner()
    self.limits = limits
    var files: [StreamListener] = []
    for socket in listeners { files.append(StreamListener(socket.descriptor, file: io.ring.attach(socket.descriptor))) }
    self.listeners = files
    streams = StreamTable(
      capacity: limits.streams, limits: limits.unauthenticated, dials: true, encryption: encryption)
    destinations = Destinations(capacity: limits.destinations)
    sends = StreamSends(
      streams: limits.streams, trains: max(io.pool.count / 2, 2), trainsPerStream: limits.queuedTrains,
      announcement: announcement)
    carries = RecordCarry(heldLimit: max(io.pool.count / 8, 1), stashLimit: 4 << 20)
    reads = StreamReads(
      group: io.claimBufferGroup(), capacity: receiveBuffers, streams: limits.streams, margin: streams.sealedMargin,
      io: io)
    nextSweep = io.now
    if !listeners.isEmpty { reads.topUp(io: &io) }
    armListeners(io: &io)
  }

  func overhead(_ path: Path) -> Int? { nil }

  func token(_ kind: Kind, _ place: Int) -> Token { Token(owner: owner, kind: kind, value: place) }

  /// Where a stream's packets come from and go to. One that was accepted has a tag of its own.
  func path(_ place: Int) -> Path {
    let stream = streams[place]
    return Path(
      transport: index, endpoint: stream.remote,
      tag: stream.destination.map { destinations[Int($0)].lane } ?? stream.number << 16 | UInt64(place))
  }

  /// The place of an accepted stream that is still open; nil when it is not.
  private func place(tag: UInt64) -> Int? {
    let place = Int(tag & 0xFFFF)
    guard place < streams.used, streams[place].state == .open, streams[place].destination == nil,
      streams[place].number == tag >> 16
    else { return nil }
    return place
  }

  // MARK: Sending

  func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count { enqueue(batch[index], io: &io) }
    batch.removeAll()
    flush(io: &io)
  }

  func send(messages batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count { enqueue(batch[index].marked(in: io.pool), isMessage: true, io: &io) }
    batch.removeAll()
    flush(io: &io)
  }

  /// Takes over the train's reference.
  private func enqueue(_ train: Superpacket, isMessage: Bool = false, io: inout WorkerIO) {
    let found = stream(for: train.path, sendsMessage: isMessage, io: &io)
    if case .place(let place) = found, sends.append(train, to: place, isMessage: isMessage, streams) {
      return
    }
    if isMessage {
      figures.messagesFailed &+= 1
    } else {
      count(found, refused: UInt64(train.datagrams))
    }
    io.pool.release(train.buffer)
    if let error = found.error { io.report(.failed(error), train.path) }
  }

  private func count(_ found: FoundStream, refused packets: UInt64) {
    switch found {
    case .place: figures.sendQueueFull &+= packets
    case .gone: figures.sendGone &+= packets
    case .waiting: figures.sendWaiting &+= packets
    case .tooMany: figures.sendTooMany &+= packets
    }
  }

  /// The stream that leads to `path`; dialled now, if need be and if it may be. Sealed packets are sent by an accepted
  /// one only to a peer; a message may be an answer to anybody.
  private func stream(for path: Path, sendsMessage: Bool = false, io: inout WorkerIO) -> FoundStream {
    if path.tag != 0, path.tag & TCPLink.lane == 0 {
      guard let place = place(tag: path.tag) else { return .gone }
      if !sendsMessage { streams.authenticate(place) }
      return .place(place)
    }
    guard let destination = destinations.place(for: path.endpoint, lane: path.tag, now: io.now) else {
      return .tooMany
    }
    if destinations[destination].stream < 0, destinations[destination].redial.isDue(io.now) {
      dial(destination, io: &io)
    }
    let place = destinations[destination].stream
    return place >= 0 ? .place(place) : .waiting(destinations[destination].error)
  }

  private func flush(io: inout WorkerIO) {
    let owner = owner
    sends.flush(&streams, io: &io) { Token(owner: owner, kind: Kind.send, value: $0) }
  }

  private func submitSend(_ place: Int, io: inout WorkerIO) {
    sends.submit(place, &streams, token: token(.send, place), io: &io)
  }

  private func completeSend(_ completion: Completion, io: inout WorkerIO) {
    let place = completion.token.value
    streams[place].isSending = false
    let result = streams.sent(place, completion.result)
    web.sent(place, streams, ring: &io.ring)
    if let error = sends.complete(place, result: result, pool: io.pool, figures: &figures) {
      close(place, error: error, io: &io)
    }
    guard streams[place].isConnected else {
      sends.discard(place, pool: io.pool, figures: &figures)
      return finish(place)
    }
    submitSend(place, io: &io)
  }

  /// TCP asks a silent partner itself. What this does is to have a stream, as for something to send, or to say that
  /// there is none.
  func keepAlive(_ path: Path, io: inout WorkerIO) {
    if let error = stream(for: path, io: &io).error { io.report(.failed(error), path) }
  }

  func confirm(_ path: Path, as holder: Holder, io: inout WorkerIO) {
    if path.tag != 0, path.tag & TCPLink.lane == 0 {
      if let place = place(tag: path.tag) { authenticate(place, as: holder, io: &io) }
    } else if let destination = destinations.place(path.endpoint, lane: path.tag) {
      destinations[destination].redial.succeeded()
      let place = destinations[destination].stream
      guard place >= 0 else { return }
      // A relay's, which several use: it is accounted to none of them.
      if streams[place].holder.row >= 0, streams[place].holder != holder { destinations[destination].isShared = true }
      let isShared = destinations[destination].isShared
      authenticate(place, as: isShared ? .dialled(path.endpoint) : holder, io: &io)
    }
  }

  private func authenticate(_ place: Int, as holder: Holder, io: inout WorkerIO) {
    guard let oldest = streams.authenticate(place, as: holder) else { return }
    figures.evictedOfPeer &+= 1
    close(oldest, error: EUSERS, io: &io)
  }

  func release(_ path: Path, io: inout WorkerIO) {
    guard path.tag == 0, let place = destinations.place(path.endpoint), !destinations[place].isShared else { return }
    forget(path.endpoint, io: &io)
  }

  // MARK: Dialling

  private func dial(_ destination: Int, io: inout WorkerIO) {
    let endpoint = destinations[destination].endpoint
    guard let socket = TCPSocket(dialling: endpoint.address) else {
      return dialFailed(destination, error: errno, io: &io)
    }
    let deadline = io.now.adding(limits.dialTime)
    if let oldest = streams.evictedByDialling(endpoint) {
      figures.evictedOfPeer &+= 1
      close(oldest, error: EUSERS, io: &io)
    }
    guard let place = streams.dialled(socket.descriptor, to: endpoint, destination: destination, deadline: deadline)
    else {
      socket.close()
      return dialFailed(destination, error: EUSERS, io: &io)
    }
    figures.dialled &+= 1
    destinations[destination].stream = place
    sends.begin(place, isOriginator: true)
    streams.submitConnect(place, token: token(.connect, place), ring: &io.ring)
  }

  private func completeConnect(_ completion: Completion, io: inout WorkerIO) {
    let place = completion.token.value
    streams[place].isConnecting = false
    guard streams[place].state == .connecting, completion.result >= 0 else {
      close(place, error: -completion.result, io: &io)
      return finish(place)
    }
    reads.receive(place, &streams)
    guard streams[place].isEncrypted else {
      streams[place].state = .open
      return opened(place, io: &io)
    }
    guard streams.secure(place, name: encryption?.name(streams[place].remote)) else {
      return close(place, error: ENOMEM, io: &io)
    }
    submitSend(place, io: &io)
  }

  func opened(_ place: Int, io: inout WorkerIO) {
    if streams[place].destination != nil {
      figures.opened &+= 1
      io.report(.opened, path(place))
    }
    submitSend(place, io: &io)
  }

  private func completeWeb(_ completion: Completion, io: inout WorkerIO) {
    switch web.complete(completion, &streams, ring: &io.ring, pool: io.pool, now: io.now) {
    case .goOn(let place), .ended(let place):
      submitSend(place, io: &io)
      if !web.holdsBack(place), !streams[place].isReceiving { reads.receive(place, &streams) }
    case .failed(let place): close(place, error: nil, io: &io)
    case nil: break
    }
  }

  /// An encrypted stream brought something, perhaps for its encryption alone.
  func secured(_ place: Int, io: inout WorkerIO) {
    if streams.becomesOpen(place) { opened(place, io: &io) } else { submitSend(place, io: &io) }
    if let error = streams.ending(place) { close(place, error: error, io: &io) }
    if bringsTooMuch(place) { closeUnidentified(place, io: &io) }
  }

  private func dialFailed(_ destination: Int, error: Int32, io: inout WorkerIO) {
    var random = SystemRandomNumberGenerator()
    destinations[destination].stream = -1
    destinations[destination].error = error
    destinations[destination].redial.failed(io.now, random: random.next())
  }

  /// A record came, so who answers there speaks this protocol.
  func proved(_ place: Int) {
    if let destination = streams[place].destination { destinations[Int(destination)].redial.succeeded() }
  }

  // MARK: Accepting

  private func armListeners(io: inout WorkerIO) {
    for place in listeners.indices { listeners[place].arm(now: io.now, token: token(.accept, place), ring: &io.ring) }
  }

  private func completeAccept(_ completion: Completion, io: inout WorkerIO) {
    let listener = completion.token.value
    guard listeners.indices.contains(listener) else { return }
    switch listeners[listener].complete(completion, now: io.now) {
    case .stream(let descriptor): admit(descriptor, io: &io)
    case .nothing: break
    case .failed: figures.acceptErrors &+= 1
    }
  }

  private func admit(_ descriptor: Int32, io: inout WorkerIO) {
    let socket = TCPSocket(accepted: descriptor)
    guard let endpoint = TCPSocket.remote(descriptor) else { return socket.close() }
    switch streams.room(for: endpoint.address) {
    case .free: break
    case .evict(let oldest):
      figures.evicted &+= 1
      close(oldest, error: nil, io: &io)
    case .refused:
      figures.refusedOfAddress &+= 1
      return socket.abort()
    }
    let deadline = io.now.adding(limits.identificationTime)
    guard let place = streams.accepted(descriptor, from: endpoint, deadline: deadline) else {
      figures.refused &+= 1
      return socket.abort()
    }
    figures.accepted &+= 1
    sends.begin(place, isOriginator: false)
    reads.receive(place, &streams)
  }

  // MARK: Completions, the turn, the end

  func complete(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    if reads.hasBacklog { resume(io: &io, received: &received, messages: &messages) }
    if web.owns(completion) { return completeWeb(completion, io: &io) }
    guard let kind = Kind(rawValue: completion.token.kind) else { return }
    switch kind {
    case .send: completeSend(completion, io: &io)
    case .receive: completeReceive(completion, io: &io, received: &received, messages: &messages)
    case .connect: completeConnect(completion, io: &io)
    case .accept: completeAccept(completion, io: &io)
    case .resume: reads.isResuming = false
    case .cancellation: break
    }
  }

  func endTurn(io: inout WorkerIO) {
    if reads.hasBacklog, !reads.isResuming {
      reads.isResuming = true
      io.ring.noOperation(token: Token(owner: owner, kind: Kind.resume))
    }
    if !listeners.isEmpty || streams.count > 0 { reads.topUp(io: &io) }
    let owner = owner
    reads.arm(&streams, io: &io) { Token(owner: owner, kind: Kind.receive, value: $0) }
    armListeners(io: &io)
    guard io.now >= nextSweep else { return }
    nextSweep = io.now.adding(nanoseconds: TCPLink.sweepInterval)
    sweep(io: &io)
  }

  /// Streams that had their time, and destinations whose time has come again.
  private func sweep(io: inout WorkerIO) {
    for place in 0..<streams.used
    where (streams[place].state == .connecting || streams[place].state == .securing)
      && io.now >= streams[place].deadline
      && streams[place].destination != nil
    {
      close(place, error: ETIMEDOUT, io: &io)
    }
    while let place = streams.expired(io.now) { closeUnidentified(place, io: &io) }
    for place in web.sweep(streams, ring: &io.ring, now: io.now) { close(place, error: nil, io: &io) }
    for destination in destinations.takeDue(io.now) { dial(destination, io: &io) }
  }

  /// Ends a stream: nothing more goes or comes by it. What the kernel still does for it completes soon.
  ///
  /// - Parameter error: what to report; nil for streams that are not authenticated, of whom nobody here wants to hear.
  func close(_ place: Int, error: Int32?, io: inout WorkerIO) {
    guard streams[place].isConnected || streams[place].state == .connecting else { return }
    // One that was handed on is nobody's either.
    let isUnauthenticated = streams[place].isUnauthenticated || web.serves(place)
    let wasOpen = streams[place].state == .open
    streams.bidFarewell(place)
    streams.beginClosing(place)
    web.forget(place, ring: &io.ring)
    figures.ended &+= 1
    carries.drop(&streams[place].carry, of: place, pool: io.pool)
    if streams[place].isConnecting { io.ring.cancel(token(.connect, place), token: token(.cancellation, place)) }
    // Those that were answered wait for what was said to arrive, as a web server does.
    if isUnauthenticated, !streams[place].isEncrypted { TCPSocket.resetOnClose(streams[place].descriptor) }
    TCPSocket.shutDown(streams[place].descriptor)
    if !streams[place].isSending { sends.discard(place, pool: io.pool, figures: &figures) }
    if let destination = streams[place].destination {
      dialFailed(Int(destination), error: error ?? ECONNRESET, io: &io)
    }
    if let error, !isUnauthenticated { io.report(wasOpen ? .ended(error) : .failed(error), path(place)) }
    finish(place)
  }

  func closeUnidentified(_ place: Int, io: inout WorkerIO) {
    figures.unidentified &+= 1
    close(place, error: nil, io: &io)
  }

  /// Lets go of a stream once the kernel has.
  func finish(_ place: Int) {
    guard streams[place].state == .closing, streams[place].isIdle, sends.isEmpty(place) else { return }
    streams.release(place)
  }

  /// Ends the stream to a destination that is not needed any more, and dials it no more.
  func forget(_ endpoint: Endpoint, lane: UInt64 = 0, io: inout WorkerIO) {
    guard let destination = destinations.place(endpoint, lane: lane) else { return }
    destinations[destination].lastUsed = MonotonicTime(nanoseconds: 0)
    let place = destinations[destination].stream
    if place >= 0 { close(place, error: nil, io: &io) }
  }

  func counters() -> [TransportCounter] {
    figures.counters(streams: streams.count, unauthenticated: streams.unauthenticated, destinations: destinations.count)
      + (encryption == nil ? [] : streams.tlsFigures.counters + web.counters)
  }

  func shares() -> [ShareReport] { [streams.shares(), sends.shares()] + carries.shares() }

  func close(io: inout WorkerIO) {
    for listener in listeners { listener.close(ring: &io.ring) }
    listeners = []
    for place in 0..<streams.used { close(place, error: nil, io: &io) }
    reads.close(io: &io)
    // Nobody waits for what is in flight, which holds the files on its own, and the pool outlives it.
    for place in 0..<streams.used where streams[place].state == .closing {
      sends.discard(place, pool: io.pool, figures: &figures)
      streams.release(place)
    }
  }
}
