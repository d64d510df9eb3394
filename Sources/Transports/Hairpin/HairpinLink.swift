import Glibc
import PacketIO

/// A worker's end of the hairpin transport: a `UDPLink` and a `TCPLink` carry the trains, and beside them each hairpin's
/// session says where they go. Trains and messages of a hairpin that is not open are dropped and counted. Behind the zero
/// marker there is what proxy and gateway say to each other, and what gateways do, which the proxy forwards.
@safe final class HairpinLink: TransportLink {
  private enum Kind: UInt8 { case timer, cancellation }

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
  private var sessions = HairpinSessions()
  private var nextDeadline: MonotonicTime?
  private var outgoing: PacketBatch
  private var outgoingStreams: PacketBatch
  private var arrivals = PacketBatch(capacity: 256)
  /// Messages to and from proxies.
  private var question = PacketBatch(capacity: 1)
  private var answers = PacketBatch(capacity: 64)
  private var random = SystemRandomNumberGenerator()
  private var figures = HairpinFigures()

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
    transport.shared.withLock { shared in
      shared.reasons = shared.reasons.filter { reason in entries.contains { $0.tag == reason.key } }
    }
    for gone in sessions.replace(entries, now: io.now) where gone.encapsulation == .tcp {
      if let port = gone.port { tcp.forget(port, io: &io) }
      tcp.forget(gone.file.proxy, io: &io)
    }
  }

  private var wall: UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Has all sessions do what is due, and sets the timer for the next.
  private func poll(io: inout WorkerIO) {
    for position in sessions.indices {
      let port = sessions[position].port
      while let step = sessions[position].poll(now: io.now, wall: wall, using: &random) {
        perform(step, position, left: port, io: &io)
      }
    }
    setTimer()
  }

  private func setTimer() {
    guard let next = sessions.deadline else {
      nextDeadline = nil
      return
    }
    guard next != nextDeadline else { return }
    nextDeadline = next
    HairpinTimer.set(timer, next)
  }

  /// - Parameter left: the port it had before.
  private func perform(_ step: HairpinSession.Step, _ position: Int, left: Endpoint?, io: inout WorkerIO) {
    let session = sessions[position]
    let isStream = session.encapsulation == .tcp
    switch step {
    case .sendToProxy(let bytes): send(bytes, to: session.file.proxy, isStream: isStream, io: &io)
    case .sendToPort(let bytes):
      guard let port = session.port else { return }
      sessions.indexPorts()
      if isStream { tcp.forget(session.file.proxy, io: &io) }
      send(bytes, to: port, isStream: isStream, io: &io)
    case .opened:
      sessions.indexPorts()
      publishReason(position)
    case .lost(let error):
      sessions.indexPorts()
      publishReason(position)
      if isStream {
        tcp.forget(session.file.proxy, io: &io)
        if let left { tcp.forget(left, io: &io) }
      }
      if error == ECONNREFUSED { figures.refusals &+= 1 } else { figures.losses &+= 1 }
      io.report(.failed(error), session.file.path(session.encapsulation, transport: index))
    }
  }

  private func publishReason(_ position: Int) {
    let (tag, reason) = (sessions.tag(position), sessions[position].lastReason)
    transport.shared.withLock { $0.reasons[tag] = reason }
  }

  private func send(_ bytes: [UInt8], to endpoint: Endpoint, isStream: Bool, io: inout WorkerIO) {
    guard let buffer = io.pool.take() else {
      figures.messagesFailed &+= 1
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
      guard let position = sessions.position(tag: train.path.tag), sessions[position].isOpen,
        let port = sessions[position].port
      else {
        figures.notOpen &+= UInt64(train.datagrams)
        io.report(.failed(ENOTCONN), train.path)
        io.pool.release(train.buffer)
        continue
      }
      sessions[position].sent(now: io.now)
      train.path.endpoint = port
      if sessions[position].encapsulation == .tcp {
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
    for index in 0..<batch.count {
      var message = batch[index]
      guard let position = sessions.position(tag: message.path.tag), sessions[position].isOpen,
        let port = sessions[position].port
      else {
        figures.messagesFailed &+= 1
        io.pool.release(message.buffer)
        continue
      }
      message.path.endpoint = port
      let isStream = sessions[position].encapsulation == .tcp
      if isStream { message.path.tag = 0 }
      question.append(message)
      if isStream { tcp.send(messages: &question, io: &io) } else { udp.send(messages: &question, io: &io) }
    }
    batch.removeAll()
  }

  func overhead(_ path: Path) -> Int? {
    guard let position = sessions.position(tag: path.tag) else { return udp.overhead(path) }
    return sessions[position].encapsulation == .tcp ? nil : udp.overhead(path)
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
      pass(.udp, io: &io, received: &received)
      takeAnswers(.udp, io: &io, messages: &messages)
    case tcp.owner:
      let others = io.takeEvents()
      tcp.complete(completion, io: &io, received: &arrivals, messages: &answers)
      pass(.tcp, io: &io, received: &received)
      takeAnswers(.tcp, io: &io, messages: &messages)
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
  private func pass(_ encapsulation: Encapsulation, io: inout WorkerIO, received: inout PacketBatch) {
    guard !arrivals.isEmpty else { return }
    for index in 0..<arrivals.count {
      var train = arrivals[index]
      guard let position = sessions.position(port: train.path.endpoint, encapsulation) else {
        figures.ofNoHairpin &+= UInt64(train.datagrams)
        io.pool.release(train.buffer)
        continue
      }
      sessions[position].heard(now: io.now)
      train.path.endpoint = sessions[position].file.proxy
      train.path.tag = sessions.tag(position)
      if !received.append(train) {
        figures.receiveQueueFull &+= UInt64(train.datagrams)
        io.pool.release(train.buffer)
      }
    }
    arrivals.removeAll()
  }

  private func takeAnswers(_ encapsulation: Encapsulation, io: inout WorkerIO, messages: inout PacketBatch) {
    guard !answers.isEmpty else { return }
    for index in 0..<answers.count {
      let message = answers[index]
      let bytes = message.bytes(in: io.pool)
      guard HairpinMessage.isOwn(bytes) else {
        pass(message: message, encapsulation, io: &io, messages: &messages)
        continue
      }
      if bytes.count <= HairpinMessage.mostBytes {
        take(bytes.array(), from: message.path.endpoint, isStream: encapsulation == .tcp, io: &io)
      }
      io.pool.release(message.buffer)
    }
    answers.removeAll()
    setTimer()
  }

  /// Hands over what the other gateway says, under the path that the peer has.
  private func pass(
    message: Superpacket, _ encapsulation: Encapsulation, io: inout WorkerIO, messages: inout PacketBatch
  ) {
    var message = message
    if let position = sessions.position(port: message.path.endpoint, encapsulation) {
      sessions[position].heard(now: io.now)
      message.path.endpoint = sessions[position].file.proxy
      message.path.tag = sessions.tag(position)
      if messages.append(message) { return }
    }
    figures.messagesIgnored &+= 1
    io.pool.release(message.buffer)
  }

  private func take(_ bytes: [UInt8], from sender: Endpoint, isStream: Bool, io: inout WorkerIO) {
    for position in sessions.indices where (sessions[position].encapsulation == .tcp) == isStream {
      let session = sessions[position]
      let isFromPort = session.port == sender
      guard isFromPort || session.file.proxy == sender else { continue }
      let step = sessions[position].receive(
        bytes, isFromPort: isFromPort, now: io.now, wall: wall, using: &random)
      if let step { perform(step, position, left: session.port, io: &io) }
    }
  }

  /// A port's stream has ended without a word: the hairpin is over, or the proxy is. Other events go on to the worker.
  private func takeEvents(_ events: [TransportEvent], io: inout WorkerIO) {
    for event in events {
      io.report(event.kind, event.path)
      guard case .ended = event.kind, let position = sessions.position(port: event.path.endpoint, .tcp),
        let step = sessions[position].streamEnded(now: io.now, using: &random)
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
    // Both encapsulations together: names that both have are summed.
    var sums = udp.counters()
    for counter in tcp.counters() + figures.counters(sessions) {
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
    HairpinTimer.close(timer)
  }
}
