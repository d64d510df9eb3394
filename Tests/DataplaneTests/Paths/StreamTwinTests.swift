import PacketIO
import Testing

@testable import Dataplane

/// Two gateways that each open a stream to the other come to one, which the higher address opened.
@Suite struct StreamTwinTests {
  typealias Side = TwinNetwork.Side

  static let cases: [(leader: Side, sending: [Side])] = Side.allCases.flatMap { leader in
    [[], [.low], [.high], [.low, .high]].map { (leader, $0) }
  }

  @Test(arguments: cases)
  func oneStreamRemains(leader: Side, sending: [Side]) {
    var network = TwinNetwork(leader: leader, sending: sending)
    network.run(seconds: 25)
    #expect(Array(network.streams.values) == [.high])
    #expect(network.dialled == 2, "each side once, and no more")
    for side in Side.allCases { #expect(network.opener(side) == .high) }
    #expect(network.ownStream(.low) == .yielded && network[.high].selection.currentCandidate?.isUsable == true)
    #expect(network.isIntact, "nothing is lost on the way")
    let switches = Side.allCases.map { network[$0].selection.switches }
    network.run(seconds: 60)
    #expect(Side.allCases.map { network[$0].selection.switches } == switches && network.dialled == 2)
    #expect(Array(network.streams.values) == [.high] && network.isIntact)
  }

  @Test(arguments: Side.allCases)
  func whereOnlyOneSideOpensStreamsItsStreamStays(dialling: Side) {
    for leader in Side.allCases {
      var network = TwinNetwork(leader: leader, dialling: [dialling])
      network.run(seconds: 30)
      #expect(Array(network.streams.values) == [dialling] && network.isIntact)
      for side in Side.allCases { #expect(network.opener(side) == dialling) }
    }
  }

  /// Autodiscovery: whoever is behind a firewall opens the stream, whatever its address.
  @Test(arguments: Side.allCases)
  func theSideBehindAFirewallOpensIt(firewalled: Side) {
    for leader in Side.allCases {
      var network = TwinNetwork(leader: leader)
      network[firewalled].isReachable = false
      network.run(seconds: 30)
      #expect(Array(network.streams.values) == [firewalled] && network.isIntact)
      #expect(network.ownStream(firewalled.other) == .dead)
    }
  }

  /// Traffic goes elsewhere, and the streams are there for the worst: one is enough for that.
  @Test(arguments: Side.allCases)
  func oneStreamRemainsBesideABetterPath(leader: Side) {
    var network = TwinNetwork(leader: leader, withDatagrams: true)
    network.run(seconds: 25)
    #expect(Array(network.streams.values) == [.high])
    for side in Side.allCases { #expect(network.opener(side) == nil) }
    #expect(network.isIntact)
  }

  /// The stream that was kept ends, and cannot be opened again: the other side opens its own.
  @Test(arguments: Side.allCases)
  func theYieldedStreamIsOpenedWhenItIsNeeded(leader: Side) {
    var network = TwinNetwork(leader: leader)
    network.run(seconds: 20)
    network[.low].isReachable = false
    for side in Side.allCases { network[side].longestGap = 0 }
    network.endAll()
    network.run(seconds: 30)
    #expect(Array(network.streams.values) == [.low])
    for side in Side.allCases {
      #expect(network.opener(side) == .low)
      #expect(network[side].longestGap < 1_000_000_000, "\(network[side].longestGap)")
    }
    // The firewall goes: there are two for a while, and then one again.
    network[.low].isReachable = true
    network.run(seconds: 60)
    #expect(Array(network.streams.values) == [.high])
    for side in Side.allCases { #expect(network.opener(side) == .high) }
  }

  /// Whatever happens, it ends with one stream and traffic on it.
  @Test func afterAnything() {
    for seed in 1...8 as ClosedRange<UInt64> {
      var numbers = SeededNumbers(seed: seed)
      var network = TwinNetwork(
        leader: seed & 1 == 0 ? .low : .high, sending: StreamTwinTests.cases[Int(seed % 8)].sending)
      for _ in 0..<20 {
        switch numbers.next() % 4 {
        case 0: network.endAll()
        case 1:
          if let number = network.streams.keys.sorted().randomElement(using: &numbers) { network.end(number) }
        case 2: network[.low].isReachable.toggle()
        default: network[.high].isReachable.toggle()
        }
        network.run(seconds: Double.random(in: 0.05...3, using: &numbers))
      }
      for side in Side.allCases { network[side].isReachable = true }
      network.run(seconds: 60)
      #expect(Array(network.streams.values) == [.high], "seed \(seed)")
      for side in Side.allCases { #expect(network.opener(side) == .high, "seed \(seed)") }
      let dialled = network.dialled
      network.run(seconds: 30)
      #expect(network.dialled == dialled, "seed \(seed)")
    }
  }
}
