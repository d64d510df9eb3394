import Identity
import PacketIO
import Testing

@testable import Keying

/// A side that goes elsewhere, and what becomes of that.
struct MobilityTests {
  private static func place(_ number: UInt32) -> Path {
    Path(endpoint: Endpoint(address: IPAddress(v4: 0xCB00_7100 | number), port: 4500))
  }

  private static let six = Path(
    endpoint: Endpoint(address: IPAddress(v6High: 0x2001_0DB8_0000_0000, low: 7), port: 4501))

  /// Two with keys.
  private static func joined(seed: UInt64 = 1, kem: Bool = false, _ change: (inout Partner) -> Void = { _ in })
    -> KeyingNetwork
  {
    let network = RekeyTests.network(seed: seed, kem: kem)
    network.join(0, 1, change)
    network.run(seconds: 3)
    return network
  }

  private func updates(_ network: KeyingNetwork, from gateway: Int, since: Int = 0) -> [HIPPacket] {
    network.wire[since...].filter { $0.from == gateway }.compactMap { HIPPacket($0.bytes) }.filter {
      $0.kind == .update
    }
  }

  private func places(_ packet: HIPPacket?) -> [Endpoint]? {
    LocatorSet(packet?.content(.locatorSet), port: 9)?.endpoints
  }

  /// Told, asked, answered; and that is all.
  @Test(arguments: [place(9), six])
  func oneMoves(_ new: Path) {
    let network = Self.joined()
    let before = network.wire.count
    let spis = network.gateways.map { $0.outbound.mapValues(\.spi) }
    network.move(0, to: [new])
    network.run(seconds: 0.016)
    #expect(network.gateways[1].found["g0"] == new)
    #expect(network.gateways[1].located["g0"] == [new])
    network.run(seconds: 200)
    let told = updates(network, from: 0, since: before)
    let asked = updates(network, from: 1, since: before)
    // It is told until it is not asked any more.
    let telling: [UInt16] = [65, 193, 385, 61505, 61697]
    #expect(told.map(\.types) == [telling, [449, 961, 61505, 61697], telling])
    #expect(asked.map(\.types) == [[65, 385, 449, 897, 61505, 61697], [449, 61505, 61697]])
    #expect(places(told.first) == [new.endpoint])
    #expect(asked.first?.content(.ack) == told.first?.content(.seq))
    #expect(told[1].content(.ack) == asked.first?.content(.seq))
    #expect(told[1].content(.echoResponseSigned) == asked.first?.content(.echoRequestSigned))
    for info in (told + asked).compactMap({ ESPInfo($0.content(.espInfo)) }) { #expect(info.old == info.new) }
    #expect(network.gateways.map { $0.outbound.mapValues(\.spi) } == spis)
    #expect(network.elsewhere.isEmpty && network.violations == [])
  }

  /// Each place that a partner names is probed: so one that moves without end has probes sent nowhere faster than that.
  @Test func placesWithoutEnd() {
    let network = Self.joined()
    for number in UInt32(0)..<50 {
      network.act(0) { $0.move(to: [Self.place(100 + number).endpoint], now: network.now) }
      network.run(seconds: 0.02)
    }
    #expect((1...2).contains(network.gateways[1].timesLocated))
    // The last one counts, however many there were.
    network.run(seconds: 3)
    #expect(network.gateways[1].located["g0"] == [Self.place(149)])
    #expect(network.violations == [])
  }

  /// An address translator is between: where the UPDATE comes from counts beside what it says.
  @Test func behindATranslator() {
    let network = Self.joined()
    network.gateways[0].places = [Self.place(9)]
    let inner = Endpoint(address: IPAddress(v4: 0x0A00_0001), port: 4500)
    network.act(0) { $0.move(to: [inner], now: network.now) }
    network.run(seconds: 0.1)
    #expect(network.gateways[1].found["g0"] == Self.place(9))
    #expect(network.gateways[1].located["g0"] == [Path(endpoint: inner)])
    network.run(seconds: 100)
    #expect(network.violations == [])
  }

  /// One more address beside the one in use: it is told of, and nothing moves.
  @Test func oneMoreAddress() {
    let network = Self.joined()
    let found = network.gateways[1].found
    network.move(0, to: [KeyingNetwork.path(to: 0), Self.place(9)])
    network.run(seconds: 100)
    #expect(network.gateways[1].found == found)
    #expect(network.gateways[1].located["g0"] == [Self.place(9)])
    #expect(network.violations == [] && network.elsewhere.isEmpty)
  }

  /// The same, and the partner is heard from the new address first: it has said that the one in use stays.
  @Test func heardElsewhere() {
    let network = Self.joined()
    let found = network.gateways[1].found
    network.move(0, to: [Self.place(9), KeyingNetwork.path(to: 0)])
    network.run(seconds: 100)
    #expect(network.gateways[1].found == found)
    #expect(network.elsewhere.isEmpty && network.violations == [])
  }

  /// What a side says of itself does not have in it where it is heard all the same: behind a translator that is so.
  @Test func heardWhereItWas() {
    let network = Self.joined()
    let found = network.gateways[1].found
    network.gateways[0].places.append(Self.place(9))
    network.act(0) { $0.move(to: [Self.place(9).endpoint], now: network.now) }
    network.run(seconds: 100)
    #expect(network.gateways[1].found == found)
    #expect(updates(network, from: 0).contains { $0.content(.echoResponseSigned) != nil })
  }

  @Test(arguments: 0..<40)
  func underEveryFault(_ seed: Int) {
    let network = Self.joined(seed: UInt64(seed))
    network.faults = KeyingNetwork.Faults(loss: 0.4, repetition: 0.4, reordering: 0.5)
    for round in 0..<4 {
      let who = (seed + round) % 2
      // Where the partner can still be reached.
      network.move(who, to: [Self.place(UInt32(10 + round)), KeyingNetwork.path(to: who)])
      network.gateways[who].places.swapAt(0, round & 1)
      network.run(seconds: Double(round))
    }
    network.run(seconds: 100)
    for number in 0..<2 { #expect(network.gateways[number].located["g\(1 - number)"]?.isEmpty == false) }
    #expect(network.areJoined(0, 1), "seed \(seed)")
    #expect(network.violations == [], "seed \(seed)")
    #expect(network.gateways.map(\.lost) == [0, 0], "seed \(seed)")
  }

  /// Lost packets cost time, and nothing else: with what is left of the network the partner is found.
  @Test(arguments: 0..<20)
  func overALossyNetwork(_ seed: Int) {
    let network = Self.joined(seed: UInt64(seed))
    network.faults.loss = 0.3
    network.move(0, to: [Self.place(9)])
    network.run(seconds: 100) { network.gateways[1].found["g0"] == Self.place(9) }
    #expect(network.gateways[1].found["g0"] == Self.place(9), "seed \(seed)")
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [], "seed \(seed)")
  }

  /// Both move at once, and only a second address of each stays.
  @Test(arguments: [false, true])
  func bothMove(_ isRekeyed: Bool) {
    let network = RekeyTests.network()
    for number in 0..<2 { network.gateways[number].places.append(Self.place(UInt32(20 + number))) }
    for number in 0..<2 {
      var partner = network.partner(1 - number, of: number)
      partner.paths.append(Self.place(UInt32(21 - number)))
      network.set(partner, at: number)
    }
    network.run(seconds: 3)
    #expect(network.areJoined(0, 1))
    if isRekeyed { network.act(0) { $0.rekey("g1", now: network.now) } }
    for number in 0..<2 {
      network.move(number, to: [Self.place(UInt32(30 + number)), Self.place(UInt32(20 + number))])
    }
    network.run(seconds: 5)
    for number in 0..<2 {
      let found = network.gateways[number].found["g\(1 - number)"]
      #expect(found.map(network.gateways[1 - number].places.contains) == true)
      #expect(network.gateways[number].located["g\(1 - number)"]?.contains(Self.place(UInt32(31 - number))) == true)
    }
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [])
    #expect(network.gateways.map(\.lost) == [0, 0])
    #expect(network.gateways[0].exchange.report(of: "g1")?.rekeys == (isRekeyed ? 1 : 0))
  }

  /// A move in the midst of a rekey, at every moment of it: both come to their end.
  @Test(arguments: [false, true], 0..<24)
  func duringARekey(_ kem: Bool, _ moment: Int) {
    let network = Self.joined(seed: UInt64(moment), kem: kem)
    let rekeys = network.gateways[0].exchange.report(of: "g1")?.rekeys ?? 0
    network.act(moment & 1) { $0.rekey("g\(1 - moment & 1)", now: network.now) }
    network.run(seconds: Double(moment / 2) * 0.002)
    network.move(0, to: [Self.place(9)])
    network.run(seconds: 20)
    #expect(network.gateways[1].found["g0"] == Self.place(9))
    #expect(
      network.gateways.indices.allSatisfy {
        network.gateways[$0].exchange.report(of: "g\(1 - $0)")?.rekeys == rekeys + 1
      })
    #expect(network.areJoined(0, 1))
    #expect(network.violations == [])
    #expect(network.gateways.map(\.lost) == [0, 0])
  }

  /// A partner that says that it is at others' addresses has no more sent there than it sends itself.
  @Test(arguments: [1, 3, 8])
  func nothingIsAmplified(_ count: Int) {
    let network = Self.joined()
    let before = network.wire.count
    for round in 0..<20 {
      let victims = (0..<count).map { Self.place(UInt32(100 + $0 + round)).endpoint }
      network.act(0) { $0.move(to: victims, now: network.now) }
      network.run(seconds: 2)
      let came = network.wire[before...].filter { $0.from == 0 }.reduce(0) { $0 + $1.bytes.count }
      let went = network.elsewhere.reduce(0) { $0 + $1.bytes.count }
      #expect(went <= came)
    }
    #expect(!network.elsewhere.isEmpty)
    #expect(network.gateways[1].found["g0"] == KeyingNetwork.path(to: 0))
    #expect(network.violations == [])
  }

  /// A copy of an UPDATE that somebody sends from elsewhere moves nothing, and no more comes of it than it is long.
  @Test func aCopyFromElsewhere() {
    let network = Self.joined()
    var before = network.wire.count
    network.move(0, to: [Self.place(9)])
    network.run(seconds: 10)
    guard let told = network.wire[before...].first(where: { $0.from == 0 })?.bytes else { return }
    before = network.wire.count
    for number in 0..<100 {
      network.inject(told, from: 0, to: 1, source: Self.place(UInt32(100 + number)))
      network.run(seconds: 0.3)
    }
    network.run(seconds: 100)
    #expect(network.elsewhere.reduce(0) { $0 + $1.bytes.count } <= 100 * told.count)
    #expect(network.gateways[1].found["g0"] == Self.place(9))
    // Neither does it move where later packets of the handshake go.
    network.elsewhere = []
    network.act(1) { $0.rekey("g0", now: network.now) }
    network.run(seconds: 0.1)
    #expect(network.elsewhere.isEmpty)
    #expect(network.violations == [])
  }

  /// Nor does it when it is the first to come, which it is where somebody holds the others back.
  @Test func theFirstCopyFromElsewhere() {
    let network = Self.joined()
    network.judge = { from, _, packet in from == 0 && packet.content(.locatorSet) != nil ? [] : [KeyingNetwork.delay] }
    let before = network.wire.count
    network.act(0) { $0.move(to: [Self.place(9).endpoint], now: network.now) }
    guard let told = network.wire[before...].first(where: { $0.from == 0 })?.bytes else { return }
    network.inject(told, from: 0, to: 1, source: Self.place(100))
    network.run(seconds: 0.1)
    #expect(network.elsewhere.count == 1)
    network.act(1) { $0.rekey("g0", now: network.now) }
    network.run(seconds: 0.1)
    #expect(network.elsewhere.count == 1)
    #expect(network.gateways[1].found["g0"] == KeyingNetwork.path(to: 0))
    #expect(network.violations == [])
  }

  /// Copies of a rekey's UPDATEs get an answer at most, and take nothing along.
  @Test func aRekeyCopiedFromElsewhere() {
    let network = Self.joined()
    let before = network.wire.count
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 10)
    let copies = network.wire[before...].filter { $0.from == 0 }.map(\.bytes)
    for copy in copies { network.inject(copy, from: 0, to: 1, source: Self.place(100)) }
    network.run(seconds: 10)
    #expect(network.elsewhere.reduce(0) { $0 + $1.bytes.count } <= copies.reduce(0) { $0 + $1.count })
    network.elsewhere = []
    network.act(1) { $0.rekey("g0", now: network.now) }
    network.run(seconds: 0.1)
    #expect(network.elsewhere.isEmpty)
    #expect(network.areJoined(0, 1))
  }

  /// An UPDATE of nothing but a question gets its answer (RFC 7401 §6.12.1), unless that were too long.
  @Test(arguments: [8, 512, 513, 900])
  func aQuestionOnly(_ count: Int) throws {
    let network = Self.joined()
    let (own, other) = (network.gateways[0].identity, network.gateways[1].identity)
    let session = try #require(network.gateways[0].exchange.session(with: other.tag))
    var builder = HIPBuilder(.update, from: own.tag, to: other.tag)
    builder.append(.seq, UpdateNumbers.content([1]))
    builder.append(.echoRequestSigned, [UInt8](repeating: 7, count: count))
    builder.appendMAC(key: session.macKeys.sent, suite: session.suite)
    builder.appendSignature(by: own)
    let before = network.wire.count
    network.inject(builder.finish(), from: 0, to: 1)
    network.run(seconds: 1)
    let answer = updates(network, from: 1, since: before)
    #expect(answer.map(\.types) == [(count <= 512 ? [449, 961] : [449]) + [61505, 61697]])
    #expect(answer.first?.content(.echoResponseSigned)?.count == (count <= 512 ? count : nil))
    #expect(network.violations == [])
  }

  /// What would change SPIs as well is no move.
  @Test(arguments: [0, 1] as [UInt32])
  func withOtherSPIs(_ difference: UInt32) throws {
    let network = Self.joined()
    let (own, other) = (network.gateways[0].identity, network.gateways[1].identity)
    let session = try #require(network.gateways[0].exchange.session(with: other.tag))
    var builder = HIPBuilder(.update, from: own.tag, to: other.tag)
    let spi = session.inboundSPI
    builder.append(.espInfo, ESPInfo(index: 0, old: spi, new: spi + difference).content)
    builder.append(.locatorSet, LocatorSet([Self.place(9).endpoint]).content(spi: spi, isForeign: false))
    builder.append(.seq, UpdateNumbers.content([1]))
    builder.appendMAC(key: session.macKeys.sent, suite: session.suite)
    builder.appendSignature(by: own)
    network.inject(builder.finish(), from: 0, to: 1)
    network.run(seconds: 1)
    #expect((network.gateways[1].located["g0"] == nil) == (difference != 0))
  }

  /// A partner that has restarted counts its UPDATEs anew.
  @Test func afterARestart() {
    let network = Self.joined()
    for number in 10..<14 {
      network.move(0, to: [Self.place(UInt32(number)), KeyingNetwork.path(to: 0)])
      network.run(seconds: 2)
    }
    network.restart(0, with: [network.partner(1, of: 0)])
    network.run(seconds: 3)
    network.move(0, to: [Self.place(20)])
    network.run(seconds: 2)
    #expect(network.gateways[1].located["g0"] == [Self.place(20)])
    #expect(network.gateways[1].found["g0"] == Self.place(20))
  }

  /// What was said before the last move comes late.
  @Test func anOldPlaceComesLate() {
    let network = Self.joined()
    let before = network.wire.count
    network.move(0, to: [Self.place(9)])
    network.run(seconds: 10)
    let old = network.wire[before...].first { $0.from == 0 }?.bytes ?? []
    network.move(0, to: [Self.place(10)])
    network.run(seconds: 10)
    network.inject(old, from: 0, to: 1)
    network.run(seconds: 10)
    #expect(network.gateways[1].located["g0"] == [Self.place(10)])
    #expect(network.gateways[1].found["g0"] == Self.place(10))
    #expect(network.elsewhere.isEmpty)
  }

  /// Every byte of what tells of a move flipped: nobody is looked for elsewhere.
  @Test func everyFlippedByte() {
    var place = 0
    while true {
      let network = Self.joined()
      var length = 0
      var isPadding = false
      network.edit = { _, bytes in
        guard let packet = HIPPacket(bytes), packet.content(.locatorSet) != nil, bytes.count > place else {
          return bytes
        }
        length = bytes.count
        var bytes = bytes
        bytes[place] ^= 0x10
        let edited = HIPPacket(bytes)
        isPadding = place >= 40 && HIPParameter.allCases.allSatisfy { packet.contents($0) == edited?.contents($0) }
        return bytes
      }
      network.move(0, to: [Self.place(9)])
      network.run(seconds: 0.2)
      if !isPadding { #expect(network.gateways[1].located["g0"] == nil, "byte \(place)") }
      place += 1
      if length == 0 || place >= length { break }
    }
    #expect(place > 200)
  }

  /// A partner that says nothing has a handshake begun with it, and is not told without end.
  @Test func givenUp() {
    let network = Self.joined()
    network.gateways[1].isUp = false
    let before = network.wire.count
    network.move(0, to: [Self.place(9)])
    network.run(seconds: 70)
    #expect(updates(network, from: 0, since: before).count == 8)
    #expect(network.wire[before...].allSatisfy { HIPPacket($0.bytes)?.kind == .update })
    network.run(seconds: 30)
    #expect(HIPPacket(network.wire.last?.bytes ?? [])?.kind == .i1)
    network.gateways[1].isUp = true
    network.run(seconds: 60)
    #expect(network.gateways[1].found["g0"] == Self.place(9))
    #expect(updates(network, from: 0, since: before).count == 8)
    #expect(network.areJoined(0, 1))
  }

  /// A handshake that is under way begins anew at once: its answer would go to an address that is gone.
  @Test func beforeThereAreKeys() {
    let network = RekeyTests.network()
    network.gateways[1].isUp = false
    network.join(0, 1)
    network.run(seconds: 40)
    network.gateways[1].isUp = true
    network.move(0, to: [Self.place(9)])
    network.run(seconds: 0.1)
    #expect(network.areJoined(0, 1))
    #expect(network.gateways[1].found["g0"] == Self.place(9))
    #expect(updates(network, from: 0).isEmpty)
  }

  /// Keys that are made anew by a handshake, by a partner that has restarted, take what was not told along.
  @Test func aRestartBeforeItIsTold() {
    let network = Self.joined()
    network.gateways[1].isUp = false
    network.move(0, to: [Self.place(9), Self.place(10)])
    network.run(seconds: 1)
    network.gateways[1].isUp = true
    network.restart(1, with: [network.partner(0, of: 1)])
    network.act(0) { $0.want("g1", now: network.now) }
    network.run(seconds: 20)
    #expect(network.areJoined(0, 1))
    #expect(network.gateways[1].located["g0"]?.contains(Self.place(10)) == true)
    #expect(network.violations == [])
  }

  /// Other programs are told of addresses alone (RFC 8046 §4).
  @Test func toOthers() {
    let network = Self.joined { $0.isForeign = true }
    let before = network.wire.count
    network.move(0, to: [Self.place(9), Self.six])
    network.run(seconds: 1)
    #expect(network.gateways[1].found["g0"] == Self.place(9))
    #expect(updates(network, from: 0, since: before).first?.content(.locatorSet)?.count == 2 * 28)
  }

  // MARK: LOCATOR_SET

  /// That of the packets of an independent program; see `IdentityTests`.
  private static let published: [UInt8] =
    [0, 1, 5, 1, 0, 0, 0x0E, 0x10, 0x0A, 0x0B, 0x0C, 0] + [UInt8](repeating: 0, count: 10) + [255, 255, 10, 77, 0, 1]
  private static let own = Endpoint(address: IPAddress(v4: 0x0A4D_0001), port: 4500)

  @Test func thePublishedOne() {
    #expect(LocatorSet([Self.own]).content(spi: 0x0A0B_0C00, isForeign: true) == Self.published)
    #expect(LocatorSet(Self.published[...], port: 4500)?.endpoints == [Self.own])
  }

  @Test func withPorts() {
    let endpoints = [Self.six.endpoint, Self.own]
    let content = LocatorSet(endpoints).content(spi: 0x0A0B_0C00, isForeign: false)
    #expect(
      Array(content.prefix(36))
        == [
          0, 2, 7, 1, 0, 0, 0x0E, 0x10, 0x11, 0x95, 17, 0, 126, 255, 255, 255, 0x0A, 0x0B, 0x0C, 0, 0x20, 1, 0x0D, 0xB8,
        ]
        + [UInt8](repeating: 0, count: 11) + [7])
    #expect(content.dropFirst(36).prefix(4) == [0, 2, 7, 0])
    #expect(LocatorSet(content[...], port: 9)?.endpoints == endpoints)
  }

  @Test func whatIsCutOrUnknown() {
    let set = Self.published[...]
    for count in 1..<set.count { #expect(LocatorSet(set.prefix(count), port: 1) == nil) }
    #expect(LocatorSet([], port: 1)?.endpoints == [])
    #expect(LocatorSet(nil, port: 1) == nil)
    func edited(_ place: Int, _ byte: UInt8) -> [Endpoint]? {
      var bytes = set
      bytes[place] = byte
      return LocatorSet(bytes + set, port: 4500).map(\.endpoints)
    }
    // Another type, packets of the handshake only, another length, no time to live: what stands beside is read.
    #expect(edited(1, 9) == [Self.own] && edited(0, 1) == [Self.own])
    #expect(edited(2, 4) == nil)
    #expect(LocatorSet(set.prefix(4) + [0, 0, 0, 0] + set.dropFirst(8), port: 4500)?.endpoints == [])
    #expect(LocatorSet(set, port: 0)?.endpoints == [])
    var tcp = LocatorSet([Self.own]).content(spi: 1, isForeign: false)
    tcp[10] = 6
    #expect(LocatorSet(tcp[...], port: 4500)?.endpoints == [])
  }

  @Test func noMoreThanEight() {
    let endpoints = (0..<20).map { Self.place(UInt32($0)).endpoint }
    #expect(LocatorSet(endpoints).endpoints == Array(endpoints.prefix(8)))
    #expect(LocatorSet(endpoints + endpoints).endpoints.count == 8)
    #expect(LocatorSet([Self.own, Self.own]).endpoints == [Self.own])
    let content = endpoints.flatMap { LocatorSet([$0]).content(spi: 1, isForeign: false) }
    #expect(LocatorSet(content[...], port: 1)?.endpoints == Array(endpoints.prefix(8)))
  }

  @Test(arguments: [
    "0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
    "::192.0.2.1", "fe80::1", "febf::1", "ff02::1", "2001:22:dcea:9bd2:f186:cea9:7b90:e009",
  ])
  func noPlaceAtAll(_ text: String) throws {
    let endpoint = Endpoint(address: try #require(IPAddress(text)), port: 4500)
    #expect(LocatorSet([endpoint]).endpoints == [])
    #expect(!endpoint.isLocator)
  }

  @Test(arguments: ["10.0.0.1", "1.1.1.1", "223.255.255.1", "169.253.1.1", "2001:db8::1", "fd00::1", "fec0::1"])
  func aPlace(_ text: String) throws {
    #expect(Endpoint(address: try #require(IPAddress(text)), port: 4500).isLocator)
    #expect(!Endpoint(address: try #require(IPAddress(text)), port: 0).isLocator)
  }
}
