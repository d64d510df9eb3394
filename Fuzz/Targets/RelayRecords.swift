import Glibc
import Identity
import PacketIO

@testable import Relay
@testable import Transports

/// A whole identity relay, turn by turn, with three gateways' streams and a stranger's: whatever is written to each of them,
/// however it is cut, a gateway reads whole records alone, and in them what a gateway that it may meet has written, or the
/// relay. The first and the third may not meet. At the end nothing is left.
///
/// For each piece one byte of the stream and of what is written there: an enrolment, an announcement, a sealed packet, or
/// bytes as they come.
let relayRecords = FuzzTarget(name: "RelayRecords") { input in
  guard input.count < 2048 else { return }
  var pieces = FuzzInput(input)
  bench.begin()
  while !pieces.isEmpty {
    let head = Int(pieces.byte())
    bench.write(head >> 2 & 7, &pieces, to: head & 3)
    // Some go on together.
    if head & 0x80 == 0 { bench.turns(2) }
  }
  bench.turns(8)
  while bench.turns(4) > 0 {}
  bench.check()
  bench.end()
}

/// One relay for all inputs, and socket pairs in the place of streams.
private struct Bench: ~Copyable {
  private static let stranger = 3
  private static let partners = [[1], [0, 2], [1]]

  private var server: HairpinServer
  private let identity = HostIdentity(ed25519Seed: [UInt8](repeating: 9, count: 32))
  private let gateways = (0..<3).map { HostIdentity(ed25519Seed: [UInt8](repeating: 10 + $0, count: 32)) }
  private var clock = HairpinClock(monotonic: .current(), wall: 1000)
  private var sequence: UInt64 = 0
  private var ends: [Int32] = []
  private var remotes: [Endpoint] = []
  /// Whose each stream may be.
  private var owners: [Set<Int>] = []
  private var written: [[UInt8]] = []
  private var read: [[UInt8]] = []
  private var idleBuffers: Int?

  init() throws {
    var options = HairpinProxyOptions(
      listen: [Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 0)], publicKeys: [])
    options.hairpins = 1
    var relay = RelayOptions(identity: identity)
    (relay.gateways, relay.pairs) = (4, 4)
    (relay.enrolments, relay.enrolmentsPerOrigin, relay.signatures) = (1 << 20, 1 << 20, 1 << 20)
    for (gateway, others) in Bench.partners.enumerated() {
      for other in others { relay.policy.allow(gateways[gateway].tag, gateways[other].tag) }
    }
    options.relay = relay
    server = try HairpinServer(options, clock: clock)
  }

  mutating func begin() {
    clock.monotonic = clock.monotonic.adding(nanoseconds: 2_000_000_000)
    clock.wall += 2
    turns(1)
    (ends, remotes, owners) = ([], [], [])
    (written, read) = ([[], [], [], []], [[], [], [], []])
    for number in 0..<4 {
      var pair: [Int32] = [-1, -1]
      guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
        fatalError("no sockets")
      }
      let remote = Endpoint(address: IPAddress(v4: 0x0A00_0001 + UInt32(number)), port: 1)
      let deadline = clock.monotonic.adding(nanoseconds: 1 << 40)
      guard let place = server.streams.table.accepted(pair[0], from: remote, deadline: deadline) else {
        fatalError("no place for a stream")
      }
      server.ports[place] = .control(listen: 0)
      server.streams.pollReadable(place, &server.engine)
      ends.append(pair[1])
      remotes.append(remote)
      owners.append([])
      put(RecordFramer.prefix, to: number)
      if number != Bench.stranger { put(enrolment(of: number, by: number), to: number) }
    }
    turns(4)
    for gateway in 0..<3 {
      for other in Bench.partners[gateway] { put(announcement(gateway, other, Bench.spi(gateway, other)), to: gateway) }
    }
    turns(4)
    require(server.identities?.places.enrolled == 3, "not enrolled")
    require(server.identities?.pairs.table.count == 4, "not bound")
  }

  /// Under which a gateway takes what another one seals.
  private static func spi(_ gateway: Int, _ other: Int) -> UInt32 { UInt32(1 + 4 * gateway + other) << 8 }

  // MARK: What is written

  mutating func write(_ kind: Int, _ pieces: inout FuzzInput, to stream: Int) {
    let number = Int(pieces.byte())
    switch kind {
    case 0: put(enrolment(of: stream == Bench.stranger ? number % 3 : stream, by: stream), to: stream)
    case 1:
      put(announcement(stream % 3, number & 3 % 3, UInt32(number >> 2) << 8), to: stream)
    case 2:
      var packet: [UInt8] = []
      packet.append(number: Bench.spi(number & 3, number >> 2 & 3) + UInt32(number >> 4))
      put(StreamForwarding.record(packet + pieces.bytes(20) + [UInt8](repeating: 7, count: 20)), to: stream)
    default: put(pieces.bytes(number + 1), to: stream)
    }
  }

  private mutating func put(_ bytes: [UInt8], to stream: Int) {
    written[stream] += bytes
    _ = send(ends[stream], bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
  }

  private mutating func enrolment(of gateway: Int, by stream: Int) -> [UInt8] {
    owners[stream].insert(gateway)
    sequence += 1
    let key = gateways[gateway].publicIdentity
    let nonce = HairpinNumber(high: 1, low: sequence)
    var enrol = EnrolmentMessage.Enrol(
      nonce: nonce,
      cookie: server.admission.cookies.cookie(
        remotes[stream], nonce: nonce, port: server.controls[0].endpoint.port, now: clock.monotonic),
      token: .zero, sequence: sequence, identity: .init(algorithm: key.algorithm, hostIdentity: key.hostIdentity))
    enrol.signature = [UInt8](repeating: 0, count: 64)
    let blank = EnrolmentMessage.enrol(enrol).encoded
    enrol.signature = gateways[gateway].sign(
      EnrolmentMessage.proof(ofEnrol: blank, signature: 64, relay: identity.tag.bytes))
    return StreamForwarding.record(EnrolmentMessage.enrol(enrol).encoded)
  }

  private func announcement(_ gateway: Int, _ other: Int, _ spi: UInt32) -> [UInt8] {
    var builder = HIPBuilder(.update, from: gateways[gateway].tag, to: gateways[other].tag)
    var info: [UInt8] = [0, 0, 0, 160, 0, 0, 0, 0]
    info.append(number: spi)
    builder.append(.espInfo, info)
    builder.appendSignature(by: gateways[gateway])
    return StreamForwarding.record([0, 0, 0, 0] + builder.finish())
  }

  // MARK: What comes of it

  /// - Returns: how much was read.
  @discardableResult mutating func turns(_ count: Int) -> Int {
    var total = 0
    for _ in 0..<count {
      _ = server.turn(waiting: 0) { [clock] in clock }
      for (stream, end) in ends.enumerated() {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        let count = recv(end, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { continue }
        read[stream] += buffer[..<count]
        total += count
      }
    }
    return total
  }

  func check() {
    let sent = written.map { Set(Bench.records($0.dropFirst(RecordFramer.prefix.count)).payloads) }
    for stream in 0..<4 {
      let (payloads, rest) = Bench.records(read[stream][...])
      require(rest.isEmpty, "part of a record")
      for payload in payloads {
        let isMarked = payload.prefix(4).allSatisfy { $0 == 0 }
        if isMarked, payload.dropFirst(4).starts(with: "CHP".utf8) { continue }
        if isMarked, HIPPacket(Array(payload.dropFirst(4)))?.sender == identity.tag { continue }
        let senders = owners[stream].flatMap { Bench.partners[$0] }
        let streams = (0..<4).filter { !owners[$0].isDisjoint(with: senders) }
        require(streams.contains { sent[$0].contains(payload) }, "\(payload) came to stream \(stream) from nowhere")
      }
    }
  }

  /// Whole records, and what is behind them.
  private static func records(_ bytes: ArraySlice<UInt8>) -> (payloads: [[UInt8]], rest: ArraySlice<UInt8>) {
    var (payloads, rest): ([[UInt8]], ArraySlice<UInt8>) = ([], bytes)
    while rest.count >= 2 {
      let length = Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1])
      guard length >= 2, rest.count >= length else { break }
      payloads.append(Array(rest.prefix(length).dropFirst(2)))
      rest = rest.dropFirst(length)
    }
    return (payloads, rest)
  }

  mutating func end() {
    for end in ends { close(end) }
    ends = []
    turns(4)
    // All pairs are looked at within a second.
    for _ in 0..<20 { _ = server.identities?.sweep(clock) }
    require(server.streams.table.count == 0, "streams are left")
    let (enrolled, pairs) = (server.identities?.places.enrolled, server.identities?.pairs.count)
    require(enrolled == 0 && pairs == 0, "\(String(describing: enrolled)) and \(String(describing: pairs)) are left")
    let available = server.engine.io.pool.available
    require(available == idleBuffers ?? available, "buffers are lost")
    idleBuffers = available
  }
}

nonisolated(unsafe) private var bench: Bench = {
  do { return try Bench() } catch { fatalError("\(error)") }
}()
