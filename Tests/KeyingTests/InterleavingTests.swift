import Identity
import PacketIO
import Testing

@testable import Keying

/// Every fate of four packets one behind the other, at every step of what two say to each other: delivered, lost, delivered
/// twice, or overtaken by the next ones. What comes of it is keys that both have, or a clean retry, and never a key that
/// is begun twice.
struct InterleavingTests {
  private enum Fate: CaseIterable {
    case delivered, lost, repeated, overtaken

    var delays: [UInt64] {
      switch self {
      case .delivered: [KeyingNetwork.delay]
      case .lost: []
      case .repeated: [KeyingNetwork.delay, KeyingNetwork.delay + 700_000_000]
      case .overtaken: [KeyingNetwork.delay * 12]
      }
    }
  }

  private static let depth = 4

  /// All sequences of fates, each as a number.
  private static var sequences: Range<Int> { 0..<(1 << (2 * depth)) }

  private static func fate(_ sequence: Int, _ place: Int) -> Fate {
    guard (0..<depth).contains(place) else { return .delivered }
    return Fate.allCases[sequence >> (2 * place) & 3]
  }

  /// - Parameter restart: who forgets everything when the last of the four packets is sent; nil: nobody.
  private func handshake(_ sequence: Int, from first: Int, restart: Int?, both: Bool) -> String? {
    let network = HandshakeTests.network(seed: UInt64(sequence))
    var count = 0
    var isRestarted = restart == nil
    network.judge = { _, _, _ in
      defer { count += 1 }
      return Self.fate(sequence, count - first).delays
    }
    network.set(network.partner(1, of: 0), at: 0)
    var second = network.partner(0, of: 1)
    if !both { second.paths = [] }
    network.set(second, at: 1)
    network.run(seconds: 60) { !isRestarted && count >= first + Self.depth || isRestarted && network.areJoined(0, 1) }
    if let restart, !isRestarted {
      isRestarted = true
      network.restart(restart, with: [restart == 0 ? network.partner(1, of: 0) : second])
      network.run(seconds: 60) { network.areJoined(0, 1) }
    }
    if !network.areJoined(0, 1) { return "no keys" }
    network.run(seconds: 5)
    if !network.areJoined(0, 1) { return "keys did not last" }
    return network.violations.first
  }

  @Test(arguments: [0, 1, 3], [false, true])
  func handshakes(_ first: Int, _ both: Bool) {
    for sequence in Self.sequences {
      let problem = handshake(sequence, from: first, restart: nil, both: both)
      #expect(problem == nil, "sequence \(sequence) from packet \(first)")
    }
  }

  @Test(arguments: [0, 1], [0, 2])
  func restarts(_ who: Int, _ first: Int) {
    for sequence in Self.sequences {
      let problem = handshake(sequence, from: first, restart: who, both: true)
      #expect(problem == nil, "sequence \(sequence) from packet \(first), restart of \(who)")
    }
  }

  /// One begins, or both do, with one UPDATE each or two; data goes all the time, and none may be lost.
  @Test(arguments: [(0, false), (2, false), (0, true), (4, true)], [false, true])
  func rekeys(_ place: (first: Int, kem: Bool), _ both: Bool) {
    let first = place.first
    for sequence in Self.sequences {
      let network = RekeyTests.network(seed: UInt64(sequence), kem: place.kem)
      network.join(0, 1)
      network.run(seconds: 2)
      var count = 0
      network.judge = { _, _, _ in
        defer { count += 1 }
        return Self.fate(sequence, count - first).delays
      }
      for round in 0..<2 {
        network.act(round) { $0.rekey("g\(1 - round)", now: network.now) }
        if both { network.act(1 - round) { $0.rekey("g\(round)", now: network.now) } }
        for _ in 0..<10 {
          network.run(seconds: 0.15)
          for number in 0..<2 { network.sendData(from: number, to: "g\(1 - number)") }
        }
      }
      network.run(seconds: 20)
      let problem = network.areJoined(0, 1) ? network.violations.first : "no keys"
      #expect(problem == nil, "sequence \(sequence) from packet \(first)")
      #expect(network.gateways.map(\.lost) == [0, 0], "sequence \(sequence) from packet \(first)")
    }
  }

  /// Two who have keys, and what goes between them from now on meets its fates; how many packets that were.
  private func joined(_ sequence: Int) -> (network: KeyingNetwork, count: () -> Int) {
    let network = HandshakeTests.network(seed: UInt64(sequence))
    network.join(0, 1)
    network.run(seconds: 2)
    var count = 0
    network.judge = { _, _, _ in
      defer { count += 1 }
      return Self.fate(sequence, count).delays
    }
    return (network, { count })
  }

  /// Somebody forgets everything amid a rekey, or while the other one closes.
  @Test(arguments: [0, 1], [false, true])
  func restartsLater(_ who: Int, _ closes: Bool) {
    for sequence in Self.sequences {
      let (network, count) = joined(sequence)
      network.act(1) { $0.rekey("g0", now: network.now) }
      if closes { network.act(1 - who) { $0.closeAll(now: network.now) } }
      network.run(seconds: 2) { count() >= Self.depth }
      network.restart(who, with: [network.partner(1 - who, of: who)])
      network.run(seconds: 100) { network.areJoined(0, 1) }
      let problem = network.areJoined(0, 1) ? network.violations.first : "no keys"
      #expect(problem == nil, "sequence \(sequence)")
      network.run(seconds: 70)
      #expect(network.gateways.map(\.inbound.count) == [1, 1], "sequence \(sequence)")
    }
  }

  /// One closes while the other makes new keys; both are partners still, and come back.
  @Test func ends() {
    for sequence in Self.sequences {
      let (network, _) = joined(sequence)
      network.act(1) { $0.rekey("g0", now: network.now) }
      network.act(0) { $0.closeAll(now: network.now) }
      network.run(seconds: 1)
      #expect(network.gateways[0].outbound.isEmpty && network.gateways[0].inbound.isEmpty)
      network.act(0) { $0.want("g1", now: network.now) }
      network.run(seconds: 100) { network.areJoined(0, 1) }
      let problem = network.areJoined(0, 1) ? network.violations.first : "no keys"
      #expect(problem == nil, "sequence \(sequence)")
    }
  }
}
