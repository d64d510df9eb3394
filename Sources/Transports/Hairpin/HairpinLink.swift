import Glibc
import PacketIO

/// A worker's end of the hairpin transport: a `UDPLink` and a `TCPLink` carry the trains, and beside them each hairpin's
/// session says where they go. Trains of a hairpin that is not open are dropped and counted. So are messages: behind the
/// zero marker a proxy takes what gateways say to itself, and forwards nothing else.
@safe final class HairpinLink: TransportLink {
  private enum Kind: UInt8 { case timer, cancellation }

  struct Hairpin {
    var session: HairpinSession
    let tag: UInt64
  }

  private let transport: HairpinTransport
  private let udp: UDPLink
  private let tcp: TCPLink
  private let index: UInt8
  private let owner: UInt8
  private let isHolder: Bool
  private let timer: Int32
  private let timerFile: RingFile
  private var timerValue = FixedArray<UInt64>(repeating: 0, count: 1)
  private var version: UInt64 = 0
  private var hairpins: [Hairpin] = []
  /// Positions in `hairpins` by tag, and by allocated port while it is open.
  private var byTag: [UInt64: Int] = [:]
  private var byPort: [Endpoint: Int] = [:]
  private var byStreamPort: [Endpoint: Int] = [:]
  private var nextDeadline: MonotonicTime?
  private var outgoing: PacketBatch
  private var outgoingStreams: PacketBatch
  private var arrivals = PacketBatch(capacity: 256)
  /// Messages to and from proxies.
  private var question = PacketBatch(capacity: 1)
  private var answers = PacketBatch(capacity: 64)
  private var random = SystemRandomNumberGenerator()

  private var notOpen: UInt64 = 0
  private var strangers: UInt64 = 0
  private var receiveQueueFull: UInt64 = 0
  private var messagesFailed: UInt64 = 0
  private var losses: UInt64 = 0
  private var refusals: UInt64 = 0

  init(
    _ transport: HairpinTransport, udp: UDPLink, tcp: TCPLink, timer: Int32, index: UInt8, isHolder: Bool,
    io: inout WorkerIO
  ) {
    self.transport = transport
    self.udp = udp
    self.tcp = tcp
    self.timer = timer
    self.index = index
    owner = io.claimOwner()
    self.isHolder = isHolder
    timerFile = io.ring.attach(timer)
    outgoing = PacketBatch(capacity: io.pool.count)
    outgoingStreams = PacketBatch(capacity: io.pool.count)
    armTimer(io: &io)
    adopt(io: &io)
    poll(io: &io)
  }

  // MARK: Tickets and time

  private func armTimer(io: inout WorkerIO) {
    unsafe io.ring.read(
      timerFile, into: UnsafeMutableRawPointer(timerValue.pointer), count: 8,
      token: Token(owner: owner, kind: Kind.timer))
  }

  /// Takes over the tickets that are in force now; sessions that stay go on.
  private func adopt(io: inout WorkerIO) {
    let (entries, version) = transport.shared.withLock { ($0.entries, $0.version) }
    guard version != self.version, isHolder else { return }
    self.version = version
    let old = hairpins
    hairpins = []
    byTag = [:]
    for entry in entries where byTag[entry.tag] == nil {
      byTag[entry.tag] = hairpins.count
      let same = old.first { $0.tag == entry.tag && $0.session.file.ticket == entry.file.ticket }
      hairpins.append(
        Hairpin(
          session: same?.session ?? HairpinSession(entry.file, encapsulation: entry.encapsulation, now: io.now),
          tag: entry.tag))
    }
    indexPorts()
    for gone in old where gone.session.encapsulation == .tcp && byTag[gone.tag] == nil {
      if let port = gone.session.port { tcp.forget(port, io: &io) }
      tcp.forget(gone.session.file.proxy, io: &io)
    }
  }

  private func indexPorts() {
    byPort = [:]
    byStreamPort = [:]
    for (position, hairpin) in hairpins.enumerated() {
      guard let port = hairpin.session.port else { continue }
      if hairpin.session.encapsulation == .udp { byPort[port] = position } else { byStreamPort[port] = position }
    }
  }

  private var wall: UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Has all sessions do what is due, and sets the timer for the next.
  private func poll(io: inout WorkerIO) {
    for position in hairpins.indices {
      let port = hairpins[position].session.port
      while let step = hairpins[position].session.poll(now: io.now, wall: wall, using: &random) {
        perform(step, position, left: port, io: &io)
      }
    }
    setTimer()
  }

  private func setTimer() {
    guard !hairpins.isEmpty else {
      nextDeadline = nil
      return
    }
    var next = hairpins[0].session.deadline
    for position in 1..<hairpins.count { next = min(next, hairpins[position].session.deadline) }
    guard next != nextDeadline else { return }
    nextDeadline = next
    HairpinTimer.set(timer, next)
  }

  /// - Parameter left: the port it had before.
  private func perform(_ step: HairpinSession.Step, _ position: Int, left: Endpoint?, io: inout WorkerIO) {
    let session = hairpins[position].session
    let isStream = session.encapsulation == .tcp
    switch step {
    case .sendToProxy(let bytes): send(bytes, to: session.file.proxy, isStream: isStream, io: &io)
    case .sendToPort(let bytes):
      guard let port = session.port else { return }
      if isStream {
        byStreamPort[port] = position
        tcp.forget(session.file.proxy, io: &io)
      } else {
        byPort[port] = position
      }
      send(bytes, to: port, isStream: isStream, io: &io)
    case .opened: indexPorts()
    case .lost(let error):
      indexPorts()
      if isStream {
        tcp.forget(session.file.proxy, io: &io)
        if let left { tcp.forget(left, io: &io) }
      }
      if error == ECONNREFUSED { refusals &+= 1 } else { losses &+= 1 }
      io.report(.failed(error), session.file.path(session.encapsulation, transport: index))
    }
  }

  private func send(_ bytes: [UInt8], to endpoint: Endpoint, isStream: Bool, io: inout WorkerIO) {
    guard let buffer = io.pool.take() else {
      messagesFailed &+= 1
      return
    }
    io.pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    question.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count,
        path: Path(transport: index, endpoint: endpoint)))
    if isStream { tcp.send(messages: &question, io: &io) } else { udp.send(messages: &question, io: &io) }
  }

  // MARK: Sending

  func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count {
      var train = batch[index]
      guard let position = byTag[train.path.tag], hairpins[position].session.isOpen,
        let port = hairpins[position].session.port
      else {
        notOpen &+= UInt64(train.datagrams)
        io.report(.failed(ENOTCONN), train.path)
        io.pool.release(train.buffer)
        continue
      }
      hairpins[position].session.sent(now: io.now)
      train.path.endpoint = port
      if hairpins[position].session.encapsulation == .tcp {
        train.path.tag = 0
        if outgoingStreams.isFull { tcp.send(&outgoingStreams, io: &io) }
        outgoingStreams.append(train)
      } else {
        if outgoing.isFull { udp.send(&outgoing, io: &io) }
        outgoing.append(train)
      }
    }
    batch.removeAll()
    if !outgoingStreams.isEmpty { tcp.send(&outgoingStreams, io: &io) }
    if !outgoing.isEmpty { udp.send(&outgoing, io: &io) }
  }

  func send(messages batch: inout PacketBatch, io: inout WorkerIO) {
    messagesFailed &+= UInt64(batch.count)
    for index in 0..<batch.count { io.pool.release(batch[index].buffer) }
    batch.removeAll()
  }

  func overhead(_ path: Path) -> Int? {
    guard let position = byTag[path.tag] else { return udp.overhead(path) }
    return hairpins[position].session.encapsulation == .tcp ? nil : udp.overhead(path)
  }

  /// Its sessions keep it open.
  func keepAlive(_ path: Path, io: inout WorkerIO) {}

  // MARK: Receiving

  func complete(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    switch completion.token.owner {
    case udp.owner:
      udp.complete(completion, io: &io, received: &arrivals, messages: &answers)
      pass(byPort, io: &io, received: &received)
      takeAnswers(isStream: false, io: &io)
    case tcp.owner:
      let others = io.takeEvents()
      tcp.complete(completion, io: &io, received: &arrivals, messages: &answers)
      pass(byStreamPort, io: &io, received: &received)
      takeAnswers(isStream: true, io: &io)
      takeEvents(io.takeEvents(), io: &io)
      for event in others { io.report(event.kind, event.path) }
    default: if completion.token.kind == Kind.timer.rawValue { completeTimer(completion.result, io: &io) }
    }
  }

  private func completeTimer(_ result: Int32, io: inout WorkerIO) {
    guard result >= 0 || result == -EAGAIN || result == -EINTR else { return }
    armTimer(io: &io)
    nextDeadline = nil
    adopt(io: &io)
    poll(io: &io)
  }

  /// Hands over what came from the ports of open hairpins, under the path that a peer has.
  private func pass(_ byPort: [Endpoint: Int], io: inout WorkerIO, received: inout PacketBatch) {
    guard !arrivals.isEmpty else { return }
    for index in 0..<arrivals.count {
      var train = arrivals[index]
      guard let position = byPort[train.path.endpoint] else {
        strangers &+= UInt64(train.datagrams)
        io.pool.release(train.buffer)
        continue
      }
      hairpins[position].session.heard(now: io.now)
      train.path.endpoint = hairpins[position].session.file.proxy
      train.path.tag = hairpins[position].tag
      if !received.append(train) {
        receiveQueueFull &+= UInt64(train.datagrams)
        io.pool.release(train.buffer)
      }
    }
    arrivals.removeAll()
  }

  private func takeAnswers(isStream: Bool, io: inout WorkerIO) {
    guard !answers.isEmpty else { return }
    for index in 0..<answers.count {
      let message = answers[index]
      let bytes = message.bytes(in: io.pool)
      if bytes.count <= HairpinMessage.mostBytes {
        take(bytes.array(), from: message.path.endpoint, isStream: isStream, io: &io)
      }
      io.pool.release(message.buffer)
    }
    answers.removeAll()
    setTimer()
  }

  private func take(_ bytes: [UInt8], from sender: Endpoint, isStream: Bool, io: inout WorkerIO) {
    for position in hairpins.indices where (hairpins[position].session.encapsulation == .tcp) == isStream {
      let session = hairpins[position].session
      let isFromPort = session.port == sender
      guard isFromPort || session.file.proxy == sender else { continue }
      let step = hairpins[position].session.receive(
        bytes, isFromPort: isFromPort, now: io.now, wall: wall, using: &random)
      if let step { perform(step, position, left: session.port, io: &io) }
    }
  }

  /// A port's stream has ended without a word: the hairpin is over, or the proxy is. Other events go on to the worker.
  private func takeEvents(_ events: [TransportEvent], io: inout WorkerIO) {
    for event in events {
      io.report(event.kind, event.path)
      guard case .ended = event.kind, let position = byStreamPort[event.path.endpoint],
        let step = hairpins[position].session.streamEnded(now: io.now, using: &random)
      else { continue }
      perform(step, position, left: event.path.endpoint, io: &io)
      setTimer()
    }
  }

  // MARK: Turn and end

  func endTurn(io: inout WorkerIO) {
    udp.endTurn(io: &io)
    tcp.endTurn(io: &io)
    if let deadline = nextDeadline, io.now >= deadline {
      poll(io: &io)
    } else {
      setTimer()
    }
  }

  func counters() -> [TransportCounter] {
    let own: [(String, UInt64)] = [
      ("hairpins", UInt64(hairpins.count)),
      ("hairpins-open", UInt64(hairpins.filter(\.session.isOpen).count)),
      ("hairpins-opened", hairpins.reduce(0) { $0 &+ $1.session.openings }),
      ("hairpin-losses", losses), ("hairpin-refusals", refusals), ("hairpin-not-open", notOpen),
      ("hairpin-strangers", strangers), ("hairpin-queue-full", receiveQueueFull),
      ("messages-failed", messagesFailed),
    ]
    // Both encapsulation together: names that both have are summed.
    var sums = udp.counters()
    for counter in tcp.counters() + own.map({ TransportCounter(name: $0.0, value: $0.1) }) {
      if let place = sums.firstIndex(where: { $0.name == counter.name }) {
        sums[place] = TransportCounter(name: counter.name, value: sums[place].value &+ counter.value)
      } else {
        sums.append(counter)
      }
    }
    return sums
  }

  func close(io: inout WorkerIO) {
    transport.shared.withLock { $0.timer = -1 }
    io.ring.cancel(Token(owner: owner, kind: Kind.timer), token: Token(owner: owner, kind: Kind.cancellation))
    io.ring.detach(timerFile)
    udp.close(io: &io)
    tcp.close(io: &io)
    Glibc.close(timer)
  }
}
