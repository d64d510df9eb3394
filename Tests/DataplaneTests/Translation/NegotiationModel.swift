import PacketIO

@testable import Dataplane

/// A handful of gateways with prefixes from few, so that they clash, and with each other's in their configurations,
/// most of the time.
struct NegotiationModel {
  let names: [String]
  private var numbers: SeededNumbers
  private var lans: [String: [Prefix]] = [:]
  private var pins: [String: [String: TranslationConfiguration]] = [:]
  private let pool: [Prefix]
  /// What gateways' configurations have as their peers' prefixes.
  private enum Knowledge: CaseIterable { case everything, theirs, some }
  private let knowledge: Knowledge

  private static let prefixes = [
    "10.0.0.0/24", "10.0.0.0/24", "10.0.0.0/16", "10.0.0.128/25", "10.0.1.0/24", "10.9.0.0/24", "172.16.0.0/12",
    "192.168.0.7/32", "fd00:1::/64", "fd00:1::/48", "fd00:1:0:1::/64",
  ]

  init(seed: UInt64) {
    numbers = SeededNumbers(seed: ~seed)
    names = Array(["a", "b", "c", "d"].prefix(.random(in: 2...4, using: &numbers)))
    // Room for two /24, for many, for the default's many.
    let pools = [
      ["100.112.0.0/23"], ["100.112.0.0/20", "fd08::/60"], IntermediateSpace.defaultPool.map(\.description),
    ]
    pool = pools.randomElement(using: &numbers)!.map { Prefix($0)! }
    knowledge = Knowledge.allCases.randomElement(using: &numbers)!
    for name in names { change(name) }
    guard Int.random(in: 0..<3, using: &numbers) == 0 else { return }
    for name in names {
      for peer in names where peer != name {
        var translation = TranslationConfiguration()
        if let pair = pair(lans[name]!) { translation.knownAs = [pair] }
        if let pair = pair(lans[peer]!) { translation.theirs = [pair] }
        pins[name, default: [:]][peer] = translation
      }
    }
  }

  private mutating func pair(_ prefixes: [Prefix]) -> PrefixPair? {
    guard let real = prefixes.randomElement(using: &numbers), Int.random(in: 0..<3, using: &numbers) == 0 else {
      return nil
    }
    let number: UInt128 =
      real.address.isV4 ? UInt128(numbers.next() >> 60) << 120 | UInt128(0x64) << 120 : UInt128(0x20) << 120
    let random = IPAddress(number: number | UInt128(numbers.next()) << 48, real.address.family)
    return PrefixPair(real: real, intermediate: Prefix(random, length: real.length))
  }

  /// Gives a gateway another LAN.
  mutating func change(_ name: String) {
    var lan: [Prefix] = []
    for _ in 0..<Int.random(in: 0...3, using: &numbers) {
      let prefix = Prefix(NegotiationModel.prefixes.randomElement(using: &numbers)!)!
      if !lan.contains(where: prefix.overlaps) { lan.append(prefix) }
    }
    lans[name] = lan
  }

  /// As of now. Peers' prefixes are those they have, or more, or not all of them.
  mutating func configuration(_ name: String) -> Configuration {
    let peers = names.filter { $0 != name }.map { peer in
      var prefixes = Array(Set(NegotiationModel.prefixes.map { Prefix($0)! })).sorted { "\($0)" < "\($1)" }
      if knowledge == .theirs { prefixes = lans[peer] ?? [] }
      if knowledge == .some { prefixes.removeAll { $0.length == 24 } }
      return PeerConfiguration(
        name: peer, prefixes: prefixes, translation: pins[name]?[peer] ?? TranslationConfiguration())
    }
    return Configuration(
      interface: InterfaceConfiguration(source: .name("t")), peers: peers, name: name, localPrefixes: lans[name] ?? [],
      intermediatePool: pool)
  }
}
