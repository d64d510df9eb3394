import Glibc
import PacketIO

/// A worker's end of the hairpin transport: a `UDPLink` and a `TCPLink` carry the trains, and beside them each hairpin's
/// session says where they go. Trains of a hairpin that is not open are dropped and counted.
@safe final class HairpinLink: TransportLink {
  private enum Kind {
    static let timer: UInt8 = 16
    static let cancel: UInt8 = 17
  }

  struct Hairpin {
    var session: HairpinSession
    let tag: UInt64
  }

  /// Set in the owner number of what the streams submit.
  static let streamOwner: UInt8 = 0x80

  private let transport: HairpinTransport
  private let udp: UDPLink
  private let tcp: TCPLink
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
  private var byStreamPort: [Endpoint: Int] = [:]
  private var nextDeadline: MonotonicTime?
  private var outgoing: PacketBatch
  private var outgoingStreams: PacketBatch
  private var arrivals = PacketBatch(capacity: 256)
  private var random = SystemRandomNumberGenerator()

  private var notOpen: UInt64 = 0
  private var strangers: UInt64 = 0
  private var receiveQueueFull: UInt64 = 0
  private var messagesReceived: UInt64 = 0
  private var messagesSent: UInt64 = 0
  private var recordsSent: UInt64 = 0
  private var losses: UInt64 = 0
  private var refusals: UInt64 = 0

  init(
    _ transport: HairpinTransport, udp: UDPLink, tcp: TCPLink, descriptors: (Int32, Int32), timer: Int32, index: UInt8,
    owner: UInt8, isHolder: Bool, io: inout WorkerIO
  ) {
    self.transport = transport
    self.udp = udp
    self.tcp = tcp
    self.descriptors = descriptors
    self.timer = timer
    self.index = index
    self.owner = owner
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
      io.report(TransportReport(path: session.file.path(session.encapsulation, transport: index), error: error))
    }
  }

  /// Datagrams go straight to the socket: they are few, and no packets of the tunnel.
  private func send(_ bytes: [UInt8], to endpoint: Endpoint, isStream: Bool, io: inout WorkerIO) {
    guard !isStream else { return sendRecord(bytes, to: endpoint, io: &io) }
    let descriptor = endpoint.address.isV4 ? descriptors.v4 : descriptors.v6
    guard descriptor >= 0 else { return }
    messagesSent &+= 1
    _ = HairpinSocket.send(descriptor, bytes, to: SocketName(endpoint))
  }

  private func sendRecord(_ bytes: [UInt8], to endpoint: Endpoint, io: inout WorkerIO) {
    guard let buffer = io.pool.take() else { return }
    messagesSent &+= 1
    recordsSent &+= 1
    io.pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    if outgoingStreams.isFull { tcp.send(&outgoingStreams, io: &io) }
    outgoingStreams.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count,
        path: Path(transport: index, endpoint: endpoint)))
    tcp.send(&outgoingStreams, io: &io)
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

  func overhead(_ path: Path) -> Int? {
    guard let position = byTag[path.tag] else { return udp.overhead(path) }
    return hairpins[position].session.encapsulation == .tcp ? nil : udp.overhead(path)
  }

  /// Its sessions keep it open.
  func keepAlive(_ path: Path, io: inout WorkerIO) {}

  // MARK: Receiving

  func complete(_ completion: Completion, io: inout WorkerIO, received: inout PacketBatch) {
    guard completion.token.owner & HairpinLink.streamOwner == 0 else {
      tcp.complete(completion, io: &io, received: &arrivals)
      pass(byStreamPort, io: &io, received: &received)
      takeMessages(&tcp.marked, isStream: true, io: &io)
      if !tcp.ended.isEmpty { takeEnded(io: &io) }
      return
    }
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
      pass(byPort, io: &io, received: &received)
      takeMessages(&udp.marked, isStream: false, io: &io)
    }
  }

  /// Hands over what came from the ports of open hairpins, under the path that a peer has.
  private func pass(_ byPort: [Endpoint: Int], io: inout WorkerIO, received: inout PacketBatch) {
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

  private func takeMessages(_ marked: inout PacketBatch, isStream: Bool, io: inout WorkerIO) {
    guard !marked.isEmpty else { return }
    for index in 0..<marked.count {
      let message = marked[index]
      let bytes = message.bytes(in: io.pool)
      messagesReceived &+= 1
      if bytes.count <= HairpinMessage.mostBytes {
        hear(bytes.array(), from: message.path.endpoint, isStream: isStream, io: &io)
      }
      io.pool.release(message.buffer)
    }
    marked.removeAll()
    setTimer()
  }

  private func hear(_ bytes: [UInt8], from sender: Endpoint, isStream: Bool, io: inout WorkerIO) {
    for position in hairpins.indices where (hairpins[position].session.encapsulation == .tcp) == isStream {
      let session = hairpins[position].session
      let isFromPort = session.port == sender
      guard isFromPort || session.file.proxy == sender else { continue }
      let step = hairpins[position].session.receive(
        bytes, isFromPort: isFromPort, now: io.now, wall: wall, using: &random)
      if let step { perform(step, position, left: session.port, io: &io) }
    }
  }

  /// A port's stream has ended without a word: the hairpin is over, or the proxy is.
  private func takeEnded(io: inout WorkerIO) {
    for port in tcp.ended {
      guard let position = byStreamPort[port],
        let step = hairpins[position].session.streamEnded(now: io.now, using: &random)
      else { continue }
      perform(step, position, left: port, io: &io)
    }
    tcp.ended.removeAll(keepingCapacity: true)
    setTimer()
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
      ("messages-received", messagesReceived), ("messages-sent", messagesSent),
      ("message-records-sent", recordsSent),
    ]
    // Both encapsulation together: names that both have are summed.
    var sums = udp.counters()
    for counter in tcp.counters() {
      if let place = sums.firstIndex(where: { $0.name == counter.name }) {
        sums[place] = TransportCounter(name: counter.name, value: sums[place].value &+ counter.value)
      } else {
        sums.append(counter)
      }
    }
    return sums + own.map { TransportCounter(name: $0.0, value: $0.1) }
  }

  func close(io: inout WorkerIO) {
    transport.shared.withLock { $0.timer = -1 }
    io.ring.cancel(Token(owner: owner, kind: Kind.timer), token: Token(owner: owner, kind: Kind.cancel))
    io.ring.detach(timerFile)
    udp.close(io: &io)
    tcp.close(io: &io)
    Glibc.close(timer)
  }
}

extension Superpacket {
  fileprivate var packets: UInt64 { UInt64((Int(length) + Int(segmentSize) - 1) / Int(segmentSize)) }
}
