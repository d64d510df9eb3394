import CLinux
import Glibc
import PacketIO

/// A worker's end of the TCP transport.
///
/// Sending: 1. `send` queues each train at its path's stream, dialling where there is none; 2. `submitSend` makes one
/// gathered send of what waits for a stream, of which one is in flight at a time; 3. `completeSend` takes what has
/// gone out of the queue.
/// Receiving (`TCPLink+Receive.swift`): 1. a completion brings a read; 2. `RecordCarry` joins it with what the read
/// before had begun; 3. `RecordFramer` finds runs of records, which are passed on where they lie.
@safe final class TCPLink: TransportLink {
  enum Kind: UInt8 {
    case accept, connect, receive, send, resume
    case cancellation = 0xFF
  }

  /// Nanoseconds between two looks at deadlines, and before a listener that failed is armed again.
  private static let sweepInterval: UInt64 = 100_000_000
  /// Gather lists between two submissions at most.
  private static let gathers = 128

  let index: UInt8
  let owner: UInt8
  let limits: TCPTransport.Limits
  var listeners: [Listener]
  var streams: StreamTable
  private var destinations: Destinations
  /// Where each stream is being connected to: the kernel reads it with the submission, which may be much later when the
  /// worker has not begun yet.
  private var names: FixedArray<SocketName>
  private var queues: SendQueues
  private var gather: RecordGather
  /// Whether runs of records are announced, for an end that need not look at them.
  private let announcesRuns: Bool
  /// Streams that may have something to send since the last look.
  private var ready: FixedArray<Int32>
  var carries: RecordCarry
  var reads: StreamReads
  private var nextSweep: MonotonicTime
  var figures = TCPFigures()

  /// A listening socket and whether the ring accepts on it.
  struct Listener {
    let socket: TCPSocket
    let file: RingFile
    var isArmed = false
    var notBefore = MonotonicTime(nanoseconds: 0)
  }

  init(
    listeners: [TCPSocket], index: UInt8, limits: TCPTransport.Limits, receiveBuffers: Int,
    announcement: RunAnnouncement? = nil, io: inout WorkerIO
  ) {
    announcesRuns = announcement != nil
    gather = RecordGather(sends: TCPLink.gathers, announcing: announcesRuns ? limits.streams : 0, announcement)
    self.index = index
    owner = io.claimOwner()
    self.limits = limits
    var files: [Listener] = []
    for socket in listeners { files.append(Listener(socket: socket, file: io.ring.attach(socket.descriptor))) }
    self.listeners = files
    streams = StreamTable(capacity: limits.streams)
    destinations = Destinations(capacity: limits.destinations)
    names = FixedArray(repeating: SocketName(Path.none.endpoint), count: limits.streams)
    queues = SendQueues(capacity: max(io.pool.count / 2, 2), trainsPerStream: limits.queuedTrains)
    ready = FixedArray(capacity: limits.streams)
    carries = RecordCarry(heldLimit: max(io.pool.count / 8, 1), stashLimit: 4 << 20)
    reads = StreamReads(group: io.claimBufferGroup(), capacity: receiveBuffers, streams: limits.streams, io: io)
    nextSweep = io.now
    if !listeners.isEmpty { reads.topUp(io: &io) }
    armListeners(io: &io)
  }

  func overhead(_ path: Path) -> Int? { nil }

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
    if case .place(let place) = found, queues.append(train, to: &streams[place].queue, isMessage: isMessage) {
      return markReady(place)
    }
    if isMessage {
      figures.messagesFailed &+= 1
    } else {
      count(found, refused: UInt64(train.datagrams))
    }
    io.pool.release(train.buffer)
    if let error = found.error { io.report(.failed(error), train.path) }
  }

  private func count(_ found: Found, refused packets: UInt64) {
    switch found {
    case .place: figures.sendQueueFull &+= packets
    case .gone: figures.sendGone &+= packets
    case .waiting: figures.sendWaiting &+= packets
    case .tooMany: figures.sendTooMany &+= packets
    }
  }

  private enum Found {
    case place(Int)
    /// The stream was accepted once and has ended.
    case gone
    /// There is no stream at the moment, because of that error.
    case waiting(Int32)
    case tooMany

    /// What to report; nil where there is a stream.
    var error: Int32? {
      switch self {
      case .place: nil
      case .gone: ENOTCONN
      case .waiting(let error): error
      case .tooMany: EUSERS
      }
    }
  }

  /// The stream that leads to `path`; dialled now, if need be and if it may be. Sealed packets are sent by an accepted
  /// one only to a peer; a message may be an answer to anybody.
  private func stream(for path: Path, sendsMessage: Bool = false, io: inout WorkerIO) -> Found {
    if path.tag != 0 {
      guard let place = streams.place(tag: path.tag) else { return .gone }
      if !sendsMessage { streams.identify(place) }
      return .place(place)
    }
    guard let destination = destinations.want(path.endpoint, now: io.now) else { return .tooMany }
    if destinations[destination].stream < 0, destinations[destination].redial.isDue(io.now) {
      dial(destination, io: &io)
    }
    let place = destinations[destination].stream
    return place >= 0 ? .place(place) : .waiting(destinations[destination].error)
  }

  private func markReady(_ place: Int) {
    guard !streams[place].isReady, !streams[place].isSending, streams[place].state == .open else { return }
    streams[place].isReady = true
    ready.append(Int32(truncatingIfNeeded: place))
  }

  private func flush(io: inout WorkerIO) {
    for index in 0..<ready.count {
      let place = Int(ready[index])
      streams[place].isReady = false
      submitSend(place, io: &io)
    }
    ready.removeAll()
  }

  /// Sends what waits for a stream, unless a send is in flight: two could overtake each other.
  private func submitSend(_ place: Int, io: inout WorkerIO) {
    guard streams[place].state == .open, !streams[place].isSending else { return }
    if gather.needsSubmission {
      io.ring.submit()
      gather.removeAll()
    }
    // In the middle of a record, or of a run, there is no place for an announcement.
    let isBetween =
      streams[place].prefix == 0 && streams[place].announced == 0 && queues.isBetweenRecords(streams[place].queue)
    guard
      let message = unsafe gather.gather(
        streams[place].queue, of: queues, prefix: streams[place].prefix,
        announcing: announcesRuns && isBetween ? place : nil, left: streams[place].announced, pool: io.pool)
    else { return }
    if gather.run.announcement > 0 {
      streams[place].announcement = gather.run.announcement
      streams[place].announced = gather.run.announced
    }
    streams[place].isSending = true
    unsafe io.ring.sendMessage(
      RingFile(streams[place].descriptor), message, flags: UInt32(MSG_NOSIGNAL | MSG_WAITALL),
      token: Token(owner: owner, kind: Kind.send, value: place))
  }

  private func completeSend(_ completion: Completion, io: inout WorkerIO) {
    let place = completion.token.value
    streams[place].isSending = false
    let isWhole = completion.result <= 0 || Int(completion.result) >= streams[place].announcement
    if completion.result <= 0, streams[place].announcement > 0 {
      // Nothing has gone, so nothing was announced.
      (streams[place].announcement, streams[place].announced) = (0, 0)
    }
    if !isWhole {
      // The kernel cuts a send only where the stream ends.
      close(place, error: EPIPE, io: &io)
    } else if completion.result > 0 {
      advance(place, by: Int(completion.result), io: &io)
    } else if ![-EAGAIN, -EINTR].contains(completion.result) {
      close(place, error: completion.result < 0 ? -completion.result : EPIPE, io: &io)
    }
    guard streams[place].state == .open else {
      discardQueue(place, io: &io)
      return finish(place)
    }
    submitSend(place, io: &io)
  }

  private func advance(_ place: Int, by sent: Int, io: inout WorkerIO) {
    var bytes = sent
    let prefix = min(streams[place].prefix, bytes)
    streams[place].prefix -= prefix
    bytes -= prefix + streams[place].announcement
    streams[place].announcement = 0
    streams[place].announced = max(streams[place].announced - bytes, 0)
    figures.sends &+= 1
    while let node = queues.advance(&streams[place].queue, by: &bytes) {
      if node.isMessage {
        figures.messagesSent &+= 1
      } else {
        figures.sentTrains &+= 1
        figures.sentDatagrams &+= UInt64(node.train.datagrams)
      }
      io.pool.release(node.train.buffer)
    }
  }

  /// What waited for a stream that has ended is lost.
  private func discardQueue(_ place: Int, io: inout WorkerIO) {
    while let node = queues.removeFirst(of: &streams[place].queue) {
      if node.isMessage { figures.messagesFailed &+= 1 } else { figures.sendLost &+= UInt64(node.train.datagrams) }
      io.pool.release(node.train.buffer)
    }
  }

  /// TCP asks a silent partner itself. What this does is to have a stream, as for something to send, or to say that
  /// there is none.
  func keepAlive(_ path: Path, io: inout WorkerIO) {
    if let error = stream(for: path, io: &io).error { io.report(.failed(error), path) }
  }

  func confirm(_ path: Path, io: inout WorkerIO) {
    if path.tag != 0 {
      if let place = streams.place(tag: path.tag) { streams.identify(place) }
    } else if let destination = destinations.place(path.endpoint) {
      destinations[destination].redial.succeeded()
    }
  }

  func release(_ path: Path, io: inout WorkerIO) {
    if path.tag == 0 { forget(path.endpoint, io: &io) }
  }

  // MARK: Dialling

  private func dial(_ destination: Int, io: inout WorkerIO) {
    let endpoint = destinations[destination].endpoint
    let path = Path(transport: index, endpoint: endpoint)
    guard let socket = TCPSocket(dialling: endpoint.address) else {
      return dialFailed(destination, error: errno, io: &io)
    }
    let deadline = io.now.adding(seconds: limits.dialTime)
    guard
      let place = streams.dialled(socket.descriptor, path: path, destination: destination, deadline: deadline)
    else {
      socket.close()
      return dialFailed(destination, error: EUSERS, io: &io)
    }
    figures.dialled &+= 1
    destinations[destination].stream = place
    streams[place].isConnecting = true
    names[place] = SocketName(endpoint)
    let length = names[place].length
    unsafe withUnsafePointer(to: &names[place]) {
      unsafe io.ring.connect(
        RingFile(socket.descriptor), $0, length: length,
        token: Token(owner: owner, kind: Kind.connect, value: place))
    }
  }

  private func completeConnect(_ completion: Completion, io: inout WorkerIO) {
    let place = completion.token.value
    streams[place].isConnecting = false
    guard streams[place].state == .connecting, completion.result >= 0 else {
      close(place, error: -completion.result, io: &io)
      return finish(place)
    }
    figures.opened &+= 1
    streams[place].state = .open
    reads.want(place, &streams)
    io.report(.opened, streams[place].path)
    submitSend(place, io: &io)
  }

  private func dialFailed(_ destination: Int, error: Int32, io: inout WorkerIO) {
    var random = SystemRandomNumberGenerator()
    destinations[destination].stream = -1
    destinations[destination].error = error
    destinations[destination].redial.failed(io.now, random: random.next())
  }

  /// A record came, so who answers there speaks this protocol.
  func proved(_ place: Int) {
    let destination = Int(streams[place].destination)
    if destination >= 0 { destinations[destination].redial.succeeded() }
  }

  // MARK: Accepting

  private func armListeners(io: inout WorkerIO) {
    for place in listeners.indices where !listeners[place].isArmed && io.now >= listeners[place].notBefore {
      listeners[place].isArmed = true
      io.ring.accept(
        listeners[place].file, multishot: io.ring.features.contains(.multishotReceive),
        token: Token(owner: owner, kind: Kind.accept, value: place))
    }
  }

  private func completeAccept(_ completion: Completion, io: inout WorkerIO) {
    let listener = completion.token.value
    guard listeners.indices.contains(listener) else { return }
    listeners[listener].isArmed = completion.more
    guard completion.result < 0 else { return admit(completion.result, io: &io) }
    guard ![-ECANCELED, -ECONNABORTED, -EINTR, -EAGAIN].contains(completion.result) else { return }
    figures.acceptErrors &+= 1
    listeners[listener].notBefore = io.now.adding(nanoseconds: TCPLink.sweepInterval)
  }

  private func admit(_ descriptor: Int32, io: inout WorkerIO) {
    let socket = TCPSocket(accepted: descriptor)
    guard let endpoint = TCPSocket.remote(descriptor) else { return socket.close() }
    guard streams.strangers(from: endpoint.address) < limits.unidentifiedPerAddress else {
      figures.refusedOfAddress &+= 1
      return socket.abort()
    }
    if streams.strangers >= limits.unidentified, let oldest = streams.oldestStranger {
      figures.evicted &+= 1
      close(oldest, error: nil, io: &io)
    }
    let deadline = io.now.adding(seconds: limits.identificationTime)
    guard
      let place = streams.accepted(descriptor, from: endpoint, transport: index, deadline: deadline)
    else {
      figures.refused &+= 1
      return socket.abort()
    }
    figures.accepted &+= 1
    reads.want(place, &streams)
  }

  // MARK: Completions, the turn, the end

  func complete(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    if reads.hasBacklog { resume(io: &io, received: &received, messages: &messages) }
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
    reads.arm(&streams, owner: owner, io: &io)
    armListeners(io: &io)
    guard io.now >= nextSweep else { return }
    nextSweep = io.now.adding(nanoseconds: TCPLink.sweepInterval)
    sweep(io: &io)
  }

  /// Streams that had their time, and destinations whose time has come again.
  private func sweep(io: inout WorkerIO) {
    for place in 0..<streams.used where io.now >= streams[place].deadline {
      if streams[place].state == .connecting {
        close(place, error: ETIMEDOUT, io: &io)
      } else if streams[place].isStranger {
        figures.unidentified &+= 1
        close(place, error: nil, io: &io)
      }
    }
    for destination in destinations.takeDue(io.now) { dial(destination, io: &io) }
  }

  /// Ends a stream: nothing more goes or comes by it. What the kernel still does for it completes soon.
  ///
  /// - Parameter error: what to report; nil for strangers, of whom nobody here wants to hear.
  func close(_ place: Int, error: Int32?, io: inout WorkerIO) {
    guard streams[place].state == .open || streams[place].state == .connecting else { return }
    let isStranger = streams[place].isStranger
    let wasOpen = streams[place].state == .open
    let destination = Int(streams[place].destination)
    streams.beginClosing(place)
    figures.ended &+= 1
    carries.drop(&streams[place].carry, of: place, pool: io.pool)
    if streams[place].isConnecting {
      io.ring.cancel(
        Token(owner: owner, kind: Kind.connect, value: place), token: Token(owner: owner, kind: Kind.cancellation))
    }
    if isStranger { TCPSocket.resetOnClose(streams[place].descriptor) }
    TCPSocket.shutDown(streams[place].descriptor)
    if !streams[place].isSending { discardQueue(place, io: &io) }
    if destination >= 0 { dialFailed(destination, error: error ?? ECONNRESET, io: &io) }
    if let error, !isStranger { io.report(wasOpen ? .ended(error) : .failed(error), streams[place].path) }
    finish(place)
  }

  /// Lets go of a stream once the kernel has.
  func finish(_ place: Int) {
    guard streams[place].state == .closing, streams[place].isIdle, streams[place].queue.isEmpty else { return }
    if streams[place].descriptor >= 0 { Glibc.close(streams[place].descriptor) }
    streams.release(place)
  }

  /// Ends the stream to a destination that nobody wants any more, and dials it no more.
  func forget(_ endpoint: Endpoint, io: inout WorkerIO) {
    guard let destination = destinations.place(endpoint) else { return }
    destinations[destination].lastWanted = MonotonicTime(nanoseconds: 0)
    let place = destinations[destination].stream
    if place >= 0 { close(place, error: nil, io: &io) }
  }

  func counters() -> [TransportCounter] {
    figures.counters(streams: streams.count, strangers: streams.strangers, destinations: destinations.count)
  }

  func close(io: inout WorkerIO) {
    for listener in listeners {
      TCPSocket.shutDown(listener.socket.descriptor)
      io.ring.detach(listener.file)
      listener.socket.close()
    }
    listeners = []
    for place in 0..<streams.used { close(place, error: nil, io: &io) }
    reads.close(io: &io)
    // Nobody waits for what is in flight, which holds the files on its own, and the pool outlives it.
    for place in 0..<streams.used where streams[place].state == .closing {
      discardQueue(place, io: &io)
      Glibc.close(streams[place].descriptor)
      streams[place].descriptor = -1
    }
  }
}
