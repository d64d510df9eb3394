import Glibc
import PacketIO

/// A worker's end of the hairpin transport: a `UDPLink` and two `TCPLink`s, one of them encrypted, carry the trains, and beside them each hairpin's
/// session says where they go. Trains and messages of a hairpin that is not open are dropped and counted. Behind the zero
/// marker there is what proxy and gateway say to each other, and what gateways do, which the proxy forwards.
@safe final class HairpinLink: TransportLink {
  private enum Kind: UInt8 { case timer, cancellation }
  private enum Carrier { case udp, tcp, tls }

  /// What is to be sent, by link.
  private struct Outgoing: ~Copyable {
    var udp: PacketBatch
    var tcp: PacketBatch
    var tls: PacketBatch

    init(capacity: Int) {
      udp = PacketBatch(capacity: capacity)
      tcp = PacketBatch(capacity: capacity)
      tls = PacketBatch(capacity: capacity)
    }
  }

  private let transport: HairpinTransport
  private let udp: UDPLink
  private let tcp: TCPLink
  private let tls: TCPLink
  private let index: UInt8
  private let owner: UInt8
  private let isHolder: Bool
  private let timer: Int32
  private let timerFile: RingFile
  private let timerValue = StateCell<UInt64>(0)
  private var version: UInt64 = 0
  private var sessions = HairpinSessions()
  private var nextDeadline: MonotonicTime?
  private var outgoing: Outgoing
  private var arrivals = PacketBatch(capacity: 256)
  /// Messages to and from proxies.
  private var question = PacketBatch(capacity: 1)
  private var answers = PacketBatch(capacity: 64)
  private var random = SystemRandomNumberGenerator()
  private var figures = HairpinFigures()

  init(
    _ transport: HairpinTransport, udp: UDPLink, tcp: TCPLink, tls: TCPLink, timer: Int32, index: UInt8, isHolder: Bool,
    io: inout WorkerIO
  ) {
    self.transport = transport
    self.udp = udp
    self.tcp = tcp
    self.tls = tls
    self.timer = timer
    self.index = index
    owner = io.claimOwner()
    self.isHolder = isHolder
    timerFile = io.ring.attach(timer)
    outgoing = Outgoing(capacity: io.pool.count)
    armTimer(io: &io)
    adopt(io: &io)
    poll(io: &io)
  }

  // MARK: Tickets and time

  private func armTimer(io: inout WorkerIO) {
    io.ring.readCounter(timerFile, into: timerValue.reference, token: Token(owner: owner, kind: Kind.timer))
  }

  /// Takes over the tickets that are in force now; sessions that stay go on.
  private func adopt(io: inout WorkerIO) {
    let (entries, version) = transport.shared.withLock { ($0.entries, $0.version) }
    guard version != self.version, isHolder else { return }
    self.version = version
    transport.shared.withLock { shared in
      shared.reasons = shared.reasons.filter { reason in entries.contains { $0.tag == reason.key } }
    }
    for gone in sessions.replace(entries, now: io.now) where gone.session.encapsulation == .tcp {
      if gone.isEncrypted {
        tls.forget(gone.session.file.proxy, lane: gone.tag | TCPLink.lane, io: &io)
      } else {
        if let port = gone.session.port { tcp.forget(port, io: &io) }
        tcp.forget(gone.session.file.proxy, io: &io)
      }
    }
  }

  private func carrier(_ position: Int) -> Carrier {
    if sessions.isEncrypted(position) { return .tls }
    return sessions[position].encapsulation == .tcp ? .tcp : .udp
  }

  /// What tells an encrypted session's stream from others to the same proxy.
  private func lane(_ position: Int) -> UInt64 {
    sessions.isEncrypted(position) ? sessions.tag(position) | TCPLink.lane : 0
  }

  /// Whose it is that came by a link's path.
  private func position(_ path: Path, _ carrier: Carrier) -> Int? {
    switch carrier {
    case .udp: sessions.position(port: path.endpoint, .udp)
    case .tcp: sessions.position(port: path.endpoint, .tcp)
    case .tls: sessions.position(tag: path.tag & ~TCPLink.lane)
    }
  }

  /// Has all sessions do what is due, and sets the timer for the next.
  private func poll(io: inout WorkerIO) {
    for position in sessions.indices {
      let port = sessions[position].port
      while let step = sessions[position].poll(now: io.now, wall: WallClock.nanoseconds(), using: &random) {
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
    let carrier = carrier(position)
    switch step {
    case .sendToProxy(let bytes): send(bytes, to: session.file.proxy, position, io: &io)
    case .sendToPort(let bytes):
      guard let port = session.port else { return }
      sessions.indexPorts()
      if carrier == .tcp { tcp.forget(session.file.proxy, io: &io) }
      send(bytes, to: port, position, io: &io)
    case .opened:
      sessions.indexPorts()
      publishReason(position)
    case .lost(let error):
      sessions.indexPorts()
      publishReason(position)
      if carrier == .tls { tls.forget(session.file.proxy, lane: lane(position), io: &io) }
      if carrier == .tcp {
        tcp.forget(session.file.proxy, io: &io)
        if let left { tcp.forget(left, io: &io) }
      }
      if error == ECONNREFUSED { figures.refusals &+= 1 } else { figures.losses &+= 1 }
      io.report(
        .failed(error), Path(transport: index, endpoint: session.file.proxy, tag: sessions.tag(position)))
    }
  }

  private func publishReason(_ position: Int) {
    let (tag, reason) = (sessions.tag(position), sessions[position].lastReason)
    transport.shared.withLock { $0.reasons[tag] = reason }
  }

  private func send(_ bytes: [UInt8], to endpoint: Endpoint, _ position: Int, io: inout WorkerIO) {
    guard let buffer = io.pool.take() else {
      figures.messagesFailed &+= 1
      return
    }
    io.pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    question.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count,
        path: Path(transport: index, endpoint: endpoint, tag: lane(position))))
    sendQuestion(carrier(position), io: &io)
  }

  private func sendQuestion(_ carrier: Carrier, io: inout WorkerIO) {
    switch carrier {
    case .udp: udp.send(messages: &question, io: &io)
    case .tcp: tcp.send(messages: &question, io: &io)
    case .tls: tls.send(messages: &question, io: &io)
    }
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
      switch carrier(position) {
      case .tcp:
        train.path.tag = 0
        if outgoing.tcp.isFull { tcp.send(&outgoing.tcp, io: &io) }
        outgoing.tcp.append(train)
      case .tls:
        train.path.tag = lane(position)
        if outgoing.tls.isFull { tls.send(&outgoing.tls, io: &io) }
        outgoing.tls.append(train)
      case .udp:
        if outgoing.udp.isFull { udp.send(&outgoing.udp, io: &io) }
        outgoing.udp.append(train)
      }
    }
    batch.removeAll()
    if !outgoing.tcp.isEmpty { tcp.send(&outgoing.tcp, io: &io) }
    if !outgoing.tls.isEmpty { tls.send(&outgoing.tls, io: &io) }
    if !outgoing.udp.isEmpty { udp.send(&outgoing.udp, io: &io) }
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
      let carrier = carrier(position)
      if carrier != .udp { message.path.tag = lane(position) }
      question.append(message)
      sendQuestion(carrier, io: &io)
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
    case tcp.owner: complete(completion, tcp, .tcp, io: &io, received: &received, messages: &messages)
    case tls.owner: complete(completion, tls, .tls, io: &io, received: &received, messages: &messages)
    default: if completion.token.kind == Kind.timer.rawValue { completeTimer(completion.result, io: &io) }
    }
  }

  private func complete(
    _ completion: Completion, _ link: TCPLink, _ carrier: Carrier, io: inout WorkerIO, received: inout PacketBatch,
    messages: inout PacketBatch
  ) {
    let others = io.takeEvents()
    link.complete(completion, io: &io, received: &arrivals, messages: &answers)
    pass(carrier, io: &io, received: &received)
    takeAnswers(carrier, io: &io, messages: &messages)
    takeEvents(io.takeEvents(), carrier, io: &io)
    for event in others { io.report(event.kind, event.path) }
  }

  private func completeTimer(_ result: Int32, io: inout WorkerIO) {
    guard result >= 0 || result == -EAGAIN || result == -EINTR else { return }
    armTimer(io: &io)
    nextDeadline = nil
    adopt(io: &io)
    poll(io: &io)
  }

  /// Hands over what came from the ports of open hairpins, under the path that a peer has.
  private func pass(_ carrier: Carrier, io: inout WorkerIO, received: inout PacketBatch) {
    guard !arrivals.isEmpty else { return }
    for index in 0..<arrivals.count {
      var train = arrivals[index]
      guard let position = position(train.path, carrier) else {
        figures.ofNoHairpin &+= UInt64(train.datagrams)
        io.pool.release(train.buffer)
        continue
      }
      sessions[position].heard(now: io.now)
      train.path.endpoint = sessions[position].file.proxy
      train.path.tag = sessions.tag(position)
      if !received.tryAppend(train) {
        figures.receiveQueueFull &+= UInt64(train.datagrams)
        io.pool.release(train.buffer)
      }
    }
    arrivals.removeAll()
  }

  private func takeAnswers(_ carrier: Carrier, io: inout WorkerIO, messages: inout PacketBatch) {
    guard !answers.isEmpty else { return }
    for index in 0..<answers.count {
      let message = answers[index]
      let bytes = message.bytes(in: io.pool)
      guard HairpinMessage.isOwn(bytes) else {
        pass(message: message, carrier, io: &io, messages: &messages)
        continue
      }
      if bytes.count <= HairpinMessage.mostBytes {
        take(bytes.array(), from: message.path, carrier, io: &io)
      }
      io.pool.release(message.buffer)
    }
    answers.removeAll()
    setTimer()
  }

  /// Hands over what the other gateway says, under the path that the peer has.
  private func pass(
    message: Superpacket, _ carrier: Carrier, io: inout WorkerIO, messages: inout PacketBatch
  ) {
    var message = message
    if let position = position(message.path, carrier) {
      sessions[position].heard(now: io.now)
      message.path.endpoint = sessions[position].file.proxy
      message.path.tag = sessions.tag(position)
      if messages.tryAppend(message) { return }
    }
    figures.messagesIgnored &+= 1
    io.pool.release(message.buffer)
  }

  private func take(_ bytes: [UInt8], from path: Path, _ carrier: Carrier, io: inout WorkerIO) {
    if carrier == .tls {
      // Control port and allocated port are one: which of them has spoken, tells what was asked.
      if let position = position(path, carrier) {
        take(bytes, position, isFromPort: sessions[position].port != nil, io: &io)
      }
      return
    }
    for position in sessions.indices where self.carrier(position) == carrier {
      let session = sessions[position]
      let isFromPort = session.port == path.endpoint
      guard isFromPort || session.file.proxy == path.endpoint else { continue }
      take(bytes, position, isFromPort: isFromPort, io: &io)
    }
  }

  private func take(_ bytes: [UInt8], _ position: Int, isFromPort: Bool, io: inout WorkerIO) {
    let port = sessions[position].port
    let step = sessions[position].receive(
      bytes, isFromPort: isFromPort, now: io.now, wall: WallClock.nanoseconds(), using: &random)
    if let step { perform(step, position, left: port, io: &io) }
  }

  /// A port's stream has ended without a word: the hairpin is over, or the proxy is. Other events go on to the worker.
  private func takeEvents(_ events: [TransportEvent], _ carrier: Carrier, io: inout WorkerIO) {
    for event in events {
      io.report(event.kind, event.path)
      guard case .ended = event.kind, let position = position(event.path, carrier),
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
    tls.endTurn(io: &io)
    if let deadline = nextDeadline, io.now >= deadline {
      poll(io: &io)
    } else {
      setTimer()
    }
  }

  func counters() -> [TransportCounter] {
    udp.counters().adding(tcp.counters()).adding(tls.counters()).adding(figures.counters(sessions))
  }

  func close(io: inout WorkerIO) {
    transport.shared.withLock { $0.timer = -1 }
    io.ring.cancel(Token(owner: owner, kind: Kind.timer), token: Token(owner: owner, kind: Kind.cancellation))
    io.ring.detach(timerFile)
    udp.close(io: &io)
    tcp.close(io: &io)
    tls.close(io: &io)
    HairpinTimer.close(timer)
  }
}
