import Identity
import PacketIO
import Testing

@testable import Keying

struct RekeyTests {
  /// Stands in for ML-KEM: the secret is a hash of key and randomness, and the "key" opens it. It is no secret at all.
  struct PlainKEM: KeyEncapsulation {
    var mechanism: UInt8 { 1 }
    var keyLength: Int { 1184 }
    var ciphertextLength: Int { 1088 }

    func makeKey() -> (publicKey: [UInt8], open: @Sendable ([UInt8]) -> KeyMaterial?) {
      let key = [UInt8](repeating: 3, count: 1184)
      return (key, { KeyMaterial(HostIdentitySuite.rsa.hash(key + $0)) })
    }

    func encapsulate(to publicKey: [UInt8]) -> (ciphertext: [UInt8], secret: KeyMaterial)? {
      let ciphertext = [UInt8](repeating: 5, count: 1088)
      return (ciphertext, KeyMaterial(HostIdentitySuite.rsa.hash(publicKey + ciphertext)))
    }
  }

  static func network(seed: UInt64 = 1, kem: Bool = false, workers: Int = 1) -> KeyingNetwork {
    KeyingNetwork(
      (0..<2).map { HandshakeTests.identity("gateway \($0)") },
      settings: KeyExchange.Settings(workers: workers, mechanisms: kem ? [PlainKEM()] : []), seed: seed)
  }

  private func rekeys(_ network: KeyingNetwork, _ gateway: Int) -> Int {
    network.gateways[gateway].events.count { if case .rekeyed = $0 { true } else { false } }
  }

  @Test(arguments: [false, true], [1, 4])
  func oneBegins(_ kem: Bool, _ workers: Int) {
    let network = RekeyTests.network(kem: kem, workers: workers)
    network.join(0, 1)
    network.run(seconds: 2)
    let before = network.gateways.map { $0.outbound.values.first?.spi }
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 2)
    #expect(network.areJoined(0, 1))
    for number in 0..<2 {
      #expect(network.gateways[number].outbound.values.first?.spi != before[number])
      // With an encapsulation the first follows the handshake.
      #expect(rekeys(network, number) == (kem ? 2 : 1))
      #expect(network.gateways[number].exchange.report(of: "g\(1 - number)")?.isPostQuantum == kem)
      #expect(network.gateways[number].lost == 0)
    }
    #expect(network.violations == [])
    // What was is accepted for a minute more.
    #expect(network.gateways[0].inbound.count == (kem ? 3 : 2) * workers)
    network.run(seconds: 61)
    #expect(network.gateways[0].inbound.count == workers)
  }

  /// Who wants new keys all the time has the partner keep eight sets that were replaced, and no packet is lost.
  @Test func newKeysWithoutEnd() {
    let network = RekeyTests.network()
    network.join(0, 1)
    network.run(seconds: 2)
    for _ in 0..<120 {
      network.act(0) { $0.rekey("g1", now: network.now) }
      network.run(seconds: 0.4)
      for number in 0..<2 { #expect(network.gateways[number].inbound.count <= 2 + 8) }
    }
    for number in 0..<2 {
      #expect(rekeys(network, number) > 60)
      #expect(network.gateways[number].lost == 0)
    }
    #expect(network.violations == [])
    network.run(seconds: 61)
    #expect(network.gateways.allSatisfy { $0.inbound.count == 1 })
  }

  @Test(arguments: [false, true])
  func bothBegin(_ kem: Bool) {
    let network = RekeyTests.network(kem: kem)
    network.join(0, 1)
    network.run(seconds: 2)
    let already = rekeys(network, 0)
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.act(1) { $0.rekey("g0", now: network.now) }
    network.run(seconds: 5)
    #expect(network.areJoined(0, 1))
    #expect((0..<2).map { rekeys(network, $0) - already } == [1, 1])
    #expect(network.violations == [])
    #expect(network.gateways.map(\.lost) == [0, 0])
  }

  /// Thousands, at will of both sides, over a network that loses, repeats and reorders, with data all the time: no
  /// packet of it goes that cannot be opened.
  @Test(arguments: [false, true], 0..<6)
  func atWill(_ kem: Bool, _ seed: Int) {
    let network = RekeyTests.network(seed: UInt64(seed), kem: kem)
    var random = Seeded(UInt64(seed) &+ 77)
    network.join(0, 1)
    network.run(seconds: 5) { network.areJoined(0, 1) }
    network.faults = KeyingNetwork.Faults(loss: 0.2, repetition: 0.2, reordering: 0.5)
    for _ in 0..<250 {
      let who = Int(random.next() % 3)
      if who != 1 { network.act(0) { $0.rekey("g1", now: network.now) } }
      if who != 0 { network.act(1) { $0.rekey("g0", now: network.now) } }
      for _ in 0..<10 {
        network.run(seconds: Double(random.next() % 100) / 1000)
        for number in 0..<2 { network.sendData(from: number, to: "g\(1 - number)") }
      }
    }
    network.run(seconds: 60)
    #expect(network.areJoined(0, 1), "seed \(seed)")
    #expect(network.violations == [], "seed \(seed)")
    #expect(network.gateways.map(\.lost) == [0, 0], "seed \(seed)")
    #expect(rekeys(network, 0) > 50, "seed \(seed)")
  }

  /// What tells whoever was asked that its half has come is lost: it says that half again, and that is the end of it.
  @Test(arguments: [false, true]) func theLastAcknowledgmentIsLost(_ kem: Bool) {
    let network = RekeyTests.network(kem: kem)
    network.join(0, 1)
    network.run(seconds: 2)
    let already = (0..<2).map { rekeys(network, $0) }
    let before = network.wire.count
    var lost = 0
    network.judge = { from, _, packet in
      guard from == 0, packet.kind == .update, packet.content(.ack) != nil, packet.content(.seq) == nil, lost == 0
      else { return [KeyingNetwork.delay] }
      lost += 1
      return []
    }
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 1)
    #expect(lost == 1)
    #expect((0..<2).map { rekeys(network, $0) - already[$0] } == [1, 1])
    let end = network.wire.count
    network.run(seconds: 100)
    #expect(network.wire.count == end, "nothing is left to be said")
    #expect(!network.wire[before...].contains { HIPPacket($0.bytes)?.kind == .i1 })
    #expect(network.areJoined(0, 1) && network.violations == [])
  }

  /// Required post-quantum keys: nothing is sealed before.
  @Test func required() {
    let network = RekeyTests.network(kem: true)
    network.join(0, 1) { $0.postQuantum = .required }
    network.run(seconds: 5)
    #expect(network.areJoined(0, 1))
    for gateway in network.gateways {
      guard case .established(_, let report)? = gateway.events.first else {
        Issue.record("\(gateway.events)")
        continue
      }
      #expect(report.isPostQuantum)
    }
    let without = RekeyTests.network()
    without.join(0, 1) { $0.postQuantum = .required }
    without.run(seconds: 5)
    #expect(without.gateways[0].outbound.isEmpty && without.gateways[1].outbound.isEmpty)
    #expect(
      without.gateways.contains {
        $0.events.contains {
          $0 == .failed(partner: "g0", .notPostQuantum) || $0 == .failed(partner: "g1", .notPostQuantum)
        }
      })
  }

  /// Time alone: keys are never older than they may be, for a day.
  @Test func aDay() {
    let network = RekeyTests.network(kem: true)
    network.join(0, 1)
    network.run(seconds: 86_400)
    #expect(network.areJoined(0, 1))
    #expect((24...40).contains(rekeys(network, 0)))
    #expect(network.violations == [])
    #expect(network.gateways.map(\.lost) == [0, 0])
  }

  /// The other side is gone: keys that cannot be replaced are used no more.
  @Test func theOtherSideIsGone() {
    let network = RekeyTests.network()
    network.join(0, 1)
    network.run(seconds: 5)
    network.gateways[1].isUp = false
    network.run(seconds: 3700)
    #expect(network.gateways[0].outbound.isEmpty)
    #expect(network.gateways[0].inbound.isEmpty)
    #expect(network.gateways[0].events.contains(.failed(partner: "g1", .expired)))
    network.gateways[1].isUp = true
    network.restart(1, with: [network.partner(0, of: 1)])
    network.run(seconds: 5)
    #expect(network.areJoined(0, 1))
  }
}
