import Identity
import KeyDerivation
import PacketIO
import Testing

@testable import Keying

struct HandshakeTests {
  static func identity(_ seed: String, _ kind: HostIdentitySuite = .ecdsa) -> HostIdentity {
    let scalar = KeyedHash.hkdfSHA256(
      secret: KeyMaterial(Array(seed.utf8)), salt: [], info: [], count: 32)
    let bytes = unsafe scalar.withBytes { unsafe [UInt8]($0) }
    return kind == .edDSA
      ? HostIdentity(ed25519Seed: bytes) : HostIdentity(p256Scalar: bytes, deterministic: true)
  }

  static func network(_ count: Int = 2, _ kind: HostIdentitySuite = .ecdsa, seed: UInt64 = 1) -> KeyingNetwork {
    KeyingNetwork((0..<count).map { identity("gateway \($0)", kind) }, seed: seed)
  }

  @Test(arguments: [HostIdentitySuite.ecdsa, .edDSA])
  func twoMeet(_ kind: HostIdentitySuite) {
    let network = HandshakeTests.network(2, kind)
    network.join(0, 1)
    network.run(seconds: 10) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
    network.run(seconds: 1)
    #expect(network.violations == [])
    for gateway in network.gateways {
      #expect(gateway.lost == 0)
      #expect(gateway.events.count == 1)
      guard case .established(_, let report)? = gateway.events.first else {
        Issue.record("\(gateway.events)")
        return
      }
      #expect(report.group == .x25519)
      #expect(report.suite == ESPSuite(.aes128GCM, implicitIV: true))
    }
    #expect(Set(network.wire.compactMap { HIPPacket($0.bytes)?.kind }) == [.i1, .r1, .i2, .r2])
  }

  @Test func onlyOneBegins() {
    let network = HandshakeTests.network()
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.set(silent, at: 1)
    network.set(network.partner(1, of: 0), at: 0)
    network.run(seconds: 1) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
    #expect(network.wire.map { HIPPacket($0.bytes)?.kind } == [.i1, .r1, .i2, .r2])
    #expect(network.violations == [])
  }

  /// At 50 ms there and back, the first packet of a user leaves after 100: the handshake waits for the network only.
  @Test(arguments: [HostIdentitySuite.ecdsa, .edDSA])
  func usersWaitForTwoRoundTrips(_ kind: HostIdentitySuite) {
    let network = HandshakeTests.network(2, kind)
    var begin: MonotonicTime?
    network.judge = { _, _, _ in
      begin = begin ?? network.now
      return [25_000_000]
    }
    network.join(0, 1)
    network.run(seconds: 10) { network.gateways.contains { $0.sent > 0 } }
    #expect(begin.map { network.now.nanoseconds(since: $0) } == 100_000_000)
  }

  /// By a satellite, along three paths: each brings an R1, and the first one is waited for.
  @Test func alongSeveralLongPaths() {
    let network = HandshakeTests.network()
    let places = [1, 50, 51].map(KeyingNetwork.path(to:))
    network.gateways[1].places = places
    network.judge = { _, _, _ in [600_000_000] }
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.set(silent, at: 1)
    var partner = network.partner(1, of: 0)
    partner.paths = places
    network.set(partner, at: 0)
    network.run(seconds: 4) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
    #expect(network.wire.count { HIPPacket($0.bytes)?.kind == .r1 } >= 3)
    #expect(network.wire.count { HIPPacket($0.bytes)?.kind == .i2 } == 1)
    #expect(network.violations == [])
  }

  /// Under loss, repetition and reordering both have keys in the end, and no packet goes that cannot be opened.
  @Test(arguments: 0..<40)
  func underEveryFault(_ seed: Int) {
    let network = HandshakeTests.network(seed: UInt64(seed))
    network.faults = KeyingNetwork.Faults(loss: 0.4, repetition: 0.4, reordering: 0.5)
    network.join(0, 1)
    network.run(seconds: 300) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1), "seed \(seed)")
    #expect(network.violations == [], "seed \(seed)")
  }

  /// Whoever restarts is back, whatever the other one holds.
  @Test(arguments: 0..<10)
  func aRestart(_ seed: Int) {
    let network = HandshakeTests.network(seed: UInt64(seed))
    network.join(0, 1)
    network.run(seconds: 10) { network.areJoined(0, 1) }
    for round in 0..<6 {
      let who = (seed + round) % 2
      network.restart(who, with: [network.partner(1 - who, of: who)])
      network.run(seconds: 3) { network.areJoined(0, 1) }
      #expect(network.areJoined(0, 1), "seed \(seed), round \(round)")
    }
    #expect(network.violations == [])
  }

  /// Nobody who is no partner gets an answer.
  @Test func strangersHearNothing() {
    let network = HandshakeTests.network(3)
    network.set(network.partner(1, of: 0), at: 0)
    network.set(network.partner(1, of: 2), at: 2)
    network.run(seconds: 100)
    #expect(network.wire.allSatisfy { $0.from != 1 })
    #expect(network.gateways[1].exchange.counters.unknown > 0)
    #expect(network.gateways[0].events == [.failed(partner: "g1", .noAnswer)])
  }

  /// An answer is never longer than what asked for it.
  @Test(arguments: [HostIdentitySuite.ecdsa, .edDSA])
  func nothingIsAmplified(_ kind: HostIdentitySuite) {
    let network = HandshakeTests.network(2, kind)
    network.join(0, 1)
    network.run(seconds: 2)
    let sizes = Dictionary(
      network.wire.compactMap { sent in HIPPacket(sent.bytes).map { ($0.kind, sent.bytes.count) } },
      uniquingKeysWith: max)
    #expect(sizes[.r1, default: 0] <= sizes[.i1, default: 0])
    #expect(sizes[.r2, default: 0] <= sizes[.i2, default: 0])
  }

  /// A partner without a group, a suite or a mechanism in common is told of, and nothing is installed.
  @Test func nothingInCommon() {
    let network = HandshakeTests.network()
    var one = network.partner(1, of: 0)
    one.suites = [ESPSuite(.aes256GCM)]
    var other = network.partner(0, of: 1)
    other.suites = [ESPSuite(.chaCha20Poly1305)]
    other.paths = []
    network.set(one, at: 0)
    network.set(other, at: 1)
    network.run(seconds: 20)
    #expect(network.gateways[0].events == [.failed(partner: "g1", .nothingInCommon)])
    #expect(network.gateways.allSatisfy { $0.inbound.isEmpty })
  }

  /// Whoever requires what the other leaves out says so once, whichever of the two begins.
  @Test func postQuantumOnOneSideOnly() {
    let network = HandshakeTests.network()
    for (gateway, mode) in [(0, PostQuantumMode.required), (1, .off)] {
      var partner = network.partner(1 - gateway, of: gateway)
      partner.postQuantum = mode
      network.set(partner, at: gateway)
    }
    network.run(seconds: 300)
    #expect(
      network.gateways[0].events.filter { if case .failed = $0 { true } else { false } }
        == [.failed(partner: "g1", .notPostQuantum)])
    #expect(network.gateways.allSatisfy { $0.outbound.isEmpty })
  }

  /// Every byte of every packet flipped, and what was flipped sent instead: no keys come of it, or the same as without.
  @Test func everyFlippedByte() {
    for kind in [HIPPacketKind.r1, .i2, .r2] {
      var place = 0
      while true {
        let network = HandshakeTests.network()
        var silent = network.partner(0, of: 1)
        silent.paths = []
        var length = 0
        // Which nobody looks at (RFC 7401 §5.2.1).
        var isPadding = false
        network.edit = { _, bytes in
          guard HIPPacket(bytes)?.kind == kind, bytes.count > place else { return bytes }
          length = bytes.count
          var bytes = bytes
          let original = HIPPacket(bytes)
          bytes[place] ^= 0x10
          let edited = HIPPacket(bytes)
          isPadding =
            place >= 40
            && HIPParameter.allCases.allSatisfy { original?.contents($0) == edited?.contents($0) }
          return bytes
        }
        network.set(silent, at: 1)
        network.set(network.partner(1, of: 0), at: 0)
        network.run(seconds: 1)
        if !isPadding {
          #expect(!network.areJoined(0, 1), "byte \(place) of \(kind)")
          #expect(network.gateways[0].outbound.isEmpty, "byte \(place) of \(kind)")
        }
        #expect(network.violations == [])
        place += 7
        if length == 0 || place >= length { break }
      }
    }
  }

  /// A whole session, played back: no association changes.
  @Test func aRecordedSession() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 5)
    let recorded = network.wire
    let before = network.gateways.map { $0.outbound.mapValues(\.spi) }
    let installed = network.gateways.map(\.inbound.count)
    for _ in 0..<3 {
      for packet in recorded { network.inject(packet.bytes, from: packet.from, to: 1 - packet.from) }
      network.run(seconds: 2)
    }
    #expect(network.gateways.map { $0.outbound.mapValues(\.spi) } == before)
    #expect(network.gateways.map(\.inbound.count) == installed)
    // Also when one side has forgotten everything.
    network.restart(1, with: [])
    network.set(network.partner(0, of: 1), at: 1)
    for packet in recorded where packet.from == 0 { network.inject(packet.bytes, from: 0, to: 1) }
    network.run(seconds: 10) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [])
  }

  /// Two who share a secret, and nothing else.
  @Test func aSecret() {
    let secret = KeyMaterial(Array(repeating: 7, count: 32))
    let sides = [
      Partner(name: "b", secret: secret, localName: "a", paths: [KeyingNetwork.path(to: 1)]),
      Partner(name: "a", secret: secret, localName: "b", paths: [KeyingNetwork.path(to: 0)]),
    ]
    let network = HandshakeTests.network()
    for (number, var side) in sides.enumerated() {
      side.name = "g\(1 - number)"
      network.set(side, at: number)
    }
    network.run(seconds: 5) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
  }

  /// Who knows the identities, but not the secret, has other keys.
  @Test func theSecretIsInTheKeys() {
    let secret = KeyMaterial(Array(repeating: 7, count: 32))
    var one = Partner(name: "g1", secret: secret, localName: "g0", paths: [KeyingNetwork.path(to: 1)])
    let other = Partner(name: "g0", secret: secret, localName: "g1")
    one.mix = KeyMaterial(Array(repeating: 8, count: 32))
    let network = HandshakeTests.network()
    network.set(one, at: 0)
    network.set(other, at: 1)
    network.run(seconds: 20)
    #expect(!network.areJoined(0, 1))
    #expect(network.gateways[0].outbound.isEmpty)
  }

  /// Two removed from each other's list: keys go at once, and the other one hears of it.
  @Test func anEnd() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 5) { network.areJoined(0, 1) }
    network.act(0) { $0.remove("g1", now: network.now) }
    #expect(network.gateways[0].inbound.isEmpty)
    network.run(seconds: 2)
    #expect(network.gateways[1].inbound.isEmpty)
    #expect(network.gateways[1].outbound.isEmpty)
    #expect(network.gateways[1].events.last == .closed(partner: "g0"))
    let kinds = network.wire.suffix(3).compactMap { HIPPacket($0.bytes)?.kind }
    #expect(kinds.contains(.closeAck))
  }
}

extension HandshakeTests {
  /// An old answer that comes before the real one costs half a second, and not the handshake.
  @Test func anOldAnswerFirst() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 2)
    guard let old = network.wire.first(where: { $0.from == 1 && HIPPacket($0.bytes)?.kind == .r1 })?.bytes else {
      // The one with the greater tag has answered.
      return
    }
    network.run(seconds: 300)
    network.restart(0, with: [network.partner(1, of: 0)])
    network.inject(old, from: 1, to: 0)
    let start = network.now
    network.run(seconds: 3) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
    #expect(network.now.nanoseconds(since: start) < 1_000_000_000)
  }
}

extension HandshakeTests {
  /// A hard puzzle is worked on a little at a time, so that others have their turn between; what is harder than anybody
  /// asks in earnest is not.
  @Test(arguments: [0, 15, 21] as [UInt8])
  func aHardPuzzle(_ difficulty: UInt8) throws {
    let network = HandshakeTests.network(3)
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.set(silent, at: 1)
    network.edit = { _, bytes in
      guard let r1 = HIPPacket(bytes), r1.kind == .r1, let puzzle = r1.content(.puzzle) else { return bytes }
      var builder = HIPBuilder(r1From: r1.sender)
      for type in r1.types.compactMap(HIPParameter.init(rawValue:)) where type != .hipSignature2 {
        let content = Array(r1.content(type) ?? [])
        builder.append(type, type == .puzzle ? [difficulty] + content.dropFirst() : content)
      }
      builder.appendSignature2(by: network.gateways[1].identity)
      let opaque = puzzle.dropFirst(2).prefix(2).reduce(0) { $0 << 8 | UInt16($1) }
      return R1Template(builder).filled(receiver: r1.receiver, i: Array(puzzle.dropFirst(4)), opaque: opaque)
    }
    network.set(network.partner(1, of: 0), at: 0)
    func answers() -> [HIPPacket] { network.wire.compactMap { HIPPacket($0.bytes) }.filter { $0.kind == .i2 } }
    network.run(seconds: 0.01)
    let begun = network.now
    network.run(seconds: 0.1) { !answers().isEmpty }
    #expect(answers().isEmpty == (difficulty > 20))
    // Each turn takes a nanosecond of this clock, and 4096 tries.
    #expect((network.now.nanoseconds(since: begun) > 2) == (difficulty > 0))
    if let i2 = answers().first {
      let solution = try #require(PuzzleParameter(i2.content(.solution), length: 48, isSolution: true))
      let isSolved = Puzzle.isSolved(
        difficulty: difficulty, i: solution.i, initiator: i2.sender, responder: i2.receiver, j: solution.j,
        suite: .ecdsa)
      #expect(isSolved)
    }
  }

  /// At a partner's place there is somebody with another key.
  @Test func somebodyElseIsThere() {
    let network = HandshakeTests.network(3)
    // Who is at g1's place is not g1, and takes g0 for its partner.
    var expected = network.partner(2, of: 0)
    expected.name = "g1"
    expected.paths = [KeyingNetwork.path(to: 1)]
    network.set(expected, at: 0)
    network.set(network.partner(0, of: 1), at: 1)
    network.run(seconds: 5)
    let stranger = Stranger(
      gid: network.gateways[1].identity.tag, wanted: network.gateways[0].identity.tag, path: KeyingNetwork.path(to: 1))
    #expect(network.gateways[0].events == [.failed(partner: "g1", .otherKey, by: stranger)])
    #expect(network.gateways[0].outbound.isEmpty && network.gateways[1].outbound.isEmpty)
  }

  /// Whoever answers in a partner's place and shows another key is named by that key.
  @Test func anAnswerUnderAnotherKey() {
    let network = HandshakeTests.network(3)
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.set(silent, at: 1)
    network.edit = { _, bytes in
      guard let r1 = HIPPacket(bytes), r1.kind == .r1 else { return bytes }
      var builder = HIPBuilder(r1From: r1.sender)
      for type in r1.types.compactMap(HIPParameter.init(rawValue:)) where type != .hipSignature2 {
        let content = Array(r1.content(type) ?? [])
        builder.append(type, type == .hostID ? network.gateways[2].identity.publicIdentity.hostID : content)
      }
      builder.appendSignature2(by: network.gateways[2].identity)
      return R1Template(builder).filled(receiver: r1.receiver, i: [UInt8](repeating: 1, count: 48), opaque: 0)
    }
    network.set(network.partner(1, of: 0), at: 0)
    network.run(seconds: 1)
    let stranger = Stranger(
      gid: network.gateways[2].identity.tag, wanted: network.gateways[0].identity.tag, path: KeyingNetwork.path(to: 1))
    #expect(network.gateways[0].events == [.failed(partner: "g1", .notAuthentic, by: stranger)])
  }

  /// Whoever is no partner and knocks is told of once, however often it does; so is a partner that asks for somebody
  /// else.
  @Test func whoIsNotListed() {
    let network = HandshakeTests.network(4)
    network.join(0, 1)
    network.run(seconds: 2)
    // One that is on no list, and one that takes g0 for g3.
    network.set(network.partner(0, of: 2), at: 2)
    var wrong = network.partner(3, of: 1)
    wrong.paths = [KeyingNetwork.path(to: 0)]
    network.set(wrong, at: 1)
    network.run(seconds: 200)
    let tags = network.gateways.map(\.identity.tag)
    let told = network.gateways[0].events.filter { if case .stranger = $0 { true } else { false } }
    #expect(
      told == [
        .stranger(Stranger(gid: tags[2], wanted: tags[0], path: KeyingNetwork.path(to: 2)), partner: nil),
        .stranger(Stranger(gid: tags[1], wanted: tags[3], path: KeyingNetwork.path(to: 1)), partner: "g1"),
      ])
    #expect(network.gateways[0].exchange.counters.unknown > 10)
  }

  /// Names are cheap, and so are addresses: of one origin few are news, and all are remembered for an hour.
  @Test func strangersAreFew() {
    let tags = (0..<10).map { HandshakeTests.identity("stranger \($0)").tag }
    var strangers = Strangers()
    var now = MonotonicTime(nanoseconds: 1_000_000_000)
    func news(_ who: Int, _ host: UInt32, port: UInt16 = 4500) -> Bool {
      let path = Path(endpoint: Endpoint(address: IPAddress(v4: 0x0A00_0000 | host), port: port))
      return strangers.isNews(Stranger(gid: tags[who], wanted: tags[9], path: path), now: now)
    }
    let ofOne = (0..<8).map { news($0, 1) }
    #expect(ofOne == [true, true, true, true, false, false, false, false])
    let again = [news(0, 1), news(0, 1, port: 5), news(0, 2), news(0, 2)]
    #expect(again == [false, false, true, false])
    // Those that others push out, the oldest first, are news again; nothing grows.
    now = now.adding(seconds: 1)
    let others = (100..<200).filter { news(1, $0) }.count
    #expect(others == 100)
    let forgotten = [news(1, 199), news(0, 2)]
    #expect(forgotten == [false, true])
    now = now.adding(seconds: 3601)
    let later = news(1, 199)
    #expect(later)
  }

  /// Two begin at about the same time, while packets wait on both sides: it is one handshake, and told of once.
  @Test(arguments: [0, 3, 7, 12, 17, 300, 900, 1900, 2100, 2600], [0, 1])
  func bothBegin(after milliseconds: Int, first: Int) {
    let network = HandshakeTests.network()
    network.set(network.partner(1 - first, of: first), at: first)
    network.run(seconds: Double(milliseconds) / 1000)
    network.set(network.partner(first, of: 1 - first), at: 1 - first)
    for _ in 0..<3000 {
      network.run(seconds: 0.001)
      for number in 0..<2 where network.gateways[number].outbound.isEmpty {
        network.act(number) { $0.want("g\(1 - number)", now: network.now) }
      }
    }
    // One that was under way while keys were put in force.
    for number in 0..<2 { network.act(number) { $0.want("g\(1 - number)", now: network.now) } }
    network.run(seconds: 1)
    #expect(network.areJoined(0, 1) && network.violations == [])
    for gateway in network.gateways {
      let told = gateway.events.filter { if case .established = $0 { true } else { false } }
      #expect(told.count == 1 && gateway.inbound.count == 1, "\(gateway.events)")
    }
  }

  /// Keys that cannot be put in force are not agreed upon again and again.
  @Test func keysThatAreNotTaken() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 2) { network.areJoined(0, 1) }
    network.act(0) { $0.abandon("g1", now: network.now) }
    #expect(network.gateways[0].inbound.isEmpty && network.gateways[0].outbound.isEmpty)
    let sent = network.wire.count { $0.from == 0 }
    network.run(seconds: 10)
    #expect(network.wire.count { $0.from == 0 } - sent <= 2)
    network.run(seconds: 60) { network.areJoined(0, 1) }
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [])
  }
}
