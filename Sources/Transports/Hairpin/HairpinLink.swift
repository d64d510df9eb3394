import Glibc
import PacketIO

/// A worker's end of the hairpin transport: a `UDPLink` carries the trains, and beside it each hairpin's session says
/// where they go. Trains of a hairpin that is not open are dropped and counted.
@safe final class HairpinLink: TransportLink {
  private enum Kind {
    static let timer: UInt8 = 16
    static let cancel: UInt8 = 17
  }

  struct Hairpin {
    var session: HairpinSession
    let tag: UInt64
  }

  private let transport: HairpinTransport
  private let udp: UDPLink
  private let descriptors: (v4: Int32, v6: Int32)
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
  private var nextDeadline: MonotonicTime?
  private var outgoing: PacketBatch
  private var arrivals = PacketBatch(capacity: 256)
  private var random = SystemRandomNumberGenerator()

  private var notOpen: UInt64 = 0
  private var strangers: UInt64 = 0
  private var receiveQueueFull: UInt64 = 0
  private var messagesReceived: UInt64 = 0
  private var messagesSent: UInt64 = 0
  private var losses: UInt64 = 0
  private var refusals: UInt64 = 0

  init(
    _ transport: HairpinTransport, udp: UDPLink, descriptors: (Int32, Int32), timer: Int32, index: UInt8,
    owner: UInt8, isHolder: Bool, io: inout WorkerIO
  ) {
    self.transport = transport
    self.udp = udp
    self.descriptors = descriptors
    self.timer = timer
    self.index = index
    self.owner = owner
    self.isHolder = isHolder
    timerFile = io.ring.attach(timer)
    outgoing = PacketBatch(capacity: io.pool.count)
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
        Hairpin(session: same?.session ?? HairpinSession(entry.file, road: entry.road, now: io.now), tag: entry.tag))
    }
    indexPorts()
  }

  private func indexPorts() {
    byPort = [:]
    for (position, hairpin) in hairpins.enumerated() {
      if let port = hairpin.session.port { byPort[port] = position }
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
      while let step = hairpins[position].session.poll(now: io.now, wall: wall, using: &random) {
        perform(step, position, io: &io)
      }
    }
    setTimer()
  }

  private func setTimer() {
    guard !hairpins.isEmpty else { return nextDeadline = nil }
    var next = hairpins[0].session.deadline
    for position in 1..<hairpins.count { next = min(next, hairpins[position].session.deadline) }
    guard next != nextDeadline else { return }
    nextDeadline = next
    HairpinTimer.set(timer, next)
  }

  private func perform(_ step: HairpinSession.Step, _ position: Int, io: inout WorkerIO) {
    let session = hairpins[position].session
    switch step {
    case .sendToProxy(let bytes): send(bytes, to: session.file.proxy)
    case .sendToPort(let bytes):
      guard let port = session.port else { return }
      byPort[port] = position
      send(bytes, to: port)
    case .opened: indexPorts()
    case .lost(let error):
      indexPorts()
      if error == ECONNREFUSED { refusals &+= 1 } else { losses &+= 1 }
      io.report(TransportReport(path: session.file.path(session.road, transport: index), error: error))
    }
  }

  /// Straight to the socket: they are few, and no packets of the tunnel.
  private func send(_ bytes: [UInt8], to endpoint: Endpoint) {
    let descriptor = endpoint.address.isV4 ? descriptors.v4 : descriptors.v6
    guard descriptor >= 0 else { return }
    messagesSent &+= 1
    _ = HairpinSocket.send(descriptor, bytes, to: SocketName(endpoint))
  }

  // MARK: Sending

  func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count {
      var train = batch[index]
      guard let position = byTag[train.path.tag], hairpins[position].session.isOpen,
        let port = hairpins[position].session.port
      else {
        notOpen &+= train.packets
        io.report(TransportReport(path: train.path, error: ENOTCONN))
        io.pool.release(train.buffer)
        continue
      }
      hairpins[position].session.sent(now: io.now)
      train.path.endpoint = port
      if outgoing.isFull { udp.send(&outgoing, io: &io) }
      outgoing.append(train)
    }
    batch.removeAll()
    if !outgoing.isEmpty { udp.send(&outgoing, io: &io) }
  }

  func overhead(_ path: Path) -> Int? { udp.overhead(path) }

  /// Its sessions keep it open.
  func keepAlive(_ path: Path, io: inout WorkerIO) {}

  // MARK: Receiving

  func complete(_ completion: Completion, io: inout WorkerIO, received: inout PacketBatch) {
    switch completion.token.kind {
    case Kind.timer:
      guard completion.result >= 0 || completion.result == -EAGAIN || completion.result == -EINTR else { return }
      armTimer(io: &io)
      nextDeadline = nil
      adopt(io: &io)
      poll(io: &io)
    case Kind.cancel, 0xFF: break
    default:
      udp.complete(completion, io: &io, received: &arrivals)
      pass(io: &io, received: &received)
      takeMessages(io: &io)
    }
  }

  /// Hands over what came from the ports of open hairpins, under the path that a peer has.
  private func pass(io: inout WorkerIO, received: inout PacketBatch) {
    guard !arrivals.isEmpty else { return }
    for index in 0..<arrivals.count {
      var train = arrivals[index]
      guard let position = byPort[train.path.endpoint] else {
        strangers &+= train.packets
        io.pool.release(train.buffer)
        continue
      }
      hairpins[position].session.heard(now: io.now)
      train.path.endpoint = hairpins[position].session.file.proxy
      train.path.tag = hairpins[position].tag
      if !received.append(train) {
        receiveQueueFull &+= train.packets
        io.pool.release(train.buffer)
      }
    }
    arrivals.removeAll()
  }

  private func takeMessages(io: inout WorkerIO) {
    guard !udp.marked.isEmpty else { return }
    for index in 0..<udp.marked.count {
      let message = udp.marked[index]
      let bytes = message.bytes(in: io.pool)
      messagesReceived &+= 1
      if bytes.count <= HairpinMessage.mostBytes { hear(bytes.array(), from: message.path.endpoint, io: &io) }
      io.pool.release(message.buffer)
    }
    udp.marked.removeAll()
    setTimer()
  }

  private func hear(_ bytes: [UInt8], from sender: Endpoint, io: inout WorkerIO) {
    for position in hairpins.indices {
      let session = hairpins[position].session
      let isFromPort = session.port == sender
      guard isFromPort || session.file.proxy == sender else { continue }
      let step = hairpins[position].session.receive(
        bytes, isFromPort: isFromPort, now: io.now, wall: wall, using: &random)
      if let step { perform(step, position, io: &io) }
    }
  }

  // MARK: Turn and end

  func endTurn(io: inout WorkerIO) {
    udp.endTurn(io: &io)
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
      ("messages-received", messagesReceived), ("messages-sent", messagesSent),
    ]
    return udp.counters() + own.map { TransportCounter(name: $0.0, value: $0.1) }
  }

  func close(io: inout WorkerIO) {
    transport.shared.withLock { $0.timer = -1 }
    io.ring.cancel(Token(owner: owner, kind: Kind.timer), token: Token(owner: owner, kind: Kind.cancel))
    io.ring.detach(timerFile)
    udp.close(io: &io)
    Glibc.close(timer)
  }
}

extension Superpacket {
  fileprivate var packets: UInt64 { UInt64((Int(length) + Int(segmentSize) - 1) / Int(segmentSize)) }
}
