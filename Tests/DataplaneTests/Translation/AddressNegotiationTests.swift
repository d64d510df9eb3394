import PacketIO
import Testing

@testable import Dataplane

@Suite struct AddressNegotiationTests {
  @Test func nothingClashesAndNothingIsTranslated() {
    var network = NegotiationNetwork(seed: 1)
    network.add("a", lan: ["10.1.0.0/16"], peers: [("b", ["10.2.0.0/16"])])
    network.add("b", lan: ["10.2.0.0/16"], peers: [("a", ["10.1.0.0/16"])])
    let isQuiet = network.run(seconds: 5)
    #expect(isQuiet)
    #expect(network.faults == [])
    #expect(network.known("10.1.0.0/16", of: "a", by: "b") == .asIs)
    #expect(network.known("10.2.0.0/16", of: "b", by: "a") == .asIs)
    #expect(network.gateways.values.allSatisfy { $0.sent <= 4 })
  }

  @Test func twoSitesWithOneLANAgreeAtOnce() {
    var network = NegotiationNetwork(seed: 1)
    let lan = ["192.168.1.0/24", "fd00:1::/64"]
    network.add("a", lan: lan, peers: [("b", lan)])
    network.add("b", lan: lan, peers: [("a", lan)])
    let isQuiet = network.run(seconds: 5)
    #expect(isQuiet)
    #expect(network.faults == [])
    for prefix in lan {
      guard case .known = network.known(prefix, of: "a", by: "b"), case .known = network.known(prefix, of: "b", by: "a")
      else {
        Issue.record("\(prefix) is not translated")
        continue
      }
    }
    #expect(network.gateways.values.allSatisfy { $0.sent <= 6 })
  }

  @Test func threeSitesWithOneLANHaveSpacesOfTheirOwnAndKeepThem() {
    var network = NegotiationNetwork(seed: 2)
    let lan = ["192.168.1.0/24"]
    let names = ["a", "b", "c"]
    for name in names { network.add(name, lan: lan, peers: names.filter { $0 != name }.map { ($0, lan) }) }
    #expect(network.run(seconds: 10) as Bool)
    #expect(network.faults == [])
    let before = network
    func states(_ network: NegotiationNetwork) -> [AddressAgreement.State?] {
      names.flatMap { a in names.filter { $0 != a }.map { network.known(lan[0], of: a, by: $0) } }
    }
    // Each of them alone, and all together, start again and find the same spaces.
    for name in names {
      network.restart(name)
      #expect(network.run(seconds: 10) as Bool)
      #expect(network.faults == [])
      #expect(states(network) == states(before), "\(name)")
    }
    for name in names { network.restart(name) }
    #expect(network.run(seconds: 10) as Bool)
    #expect(states(network) == states(before))
  }

  @Test func overlappingPrefixesOfDifferentLengthsClash() {
    var network = NegotiationNetwork(seed: 3)
    network.add("a", lan: ["10.0.0.0/16"], peers: [("b", ["10.0.5.0/24", "10.9.0.0/24"])])
    network.add("b", lan: ["10.0.5.0/24", "10.9.0.0/24"], peers: [("a", ["10.0.0.0/16"])])
    #expect(network.run(seconds: 5) as Bool)
    #expect(network.faults == [])
    #expect(network.known("10.9.0.0/24", of: "b", by: "a") == .asIs)
    guard case .known(let small) = network.known("10.0.5.0/24", of: "b", by: "a"),
      case .known(let large) = network.known("10.0.0.0/16", of: "a", by: "b")
    else { return #expect(Bool(false), "not translated") }
    #expect(small.length == 24 && large.length == 16)
  }

  /// The hub has no clash of its own, but two partners with one prefix: the one listed first keeps it.
  @Test func ofTwoPartnersWithOnePrefixTheFirstKeepsIt() {
    var network = NegotiationNetwork(seed: 4)
    let lan = ["10.1.0.0/24"]
    network.add("hub", lan: ["10.9.0.0/24"], peers: [("b", lan), ("c", lan)])
    network.add("b", lan: lan, peers: [("hub", ["10.9.0.0/24"])])
    // The hub goes on asking for the third.
    let isQuiet = network.run(seconds: 5)
    #expect(!isQuiet)
    #expect(network.known(lan[0], of: "b", by: "hub") == .asIs)
    // The clash appears while the first is in use.
    network.add("c", lan: lan, peers: [("hub", ["10.9.0.0/24"])])
    #expect(network.run(seconds: 60) == true)
    #expect(network.faults == [])
    #expect(network.known(lan[0], of: "b", by: "hub") == .asIs)
    guard case .known = network.known(lan[0], of: "c", by: "hub") else { return #expect(Bool(false)) }
    #expect(network.known("10.9.0.0/24", of: "hub", by: "c") == .asIs)
  }

  @Test func aPrefixThatIsTakenBackIsNotRoutedAndComesBack() {
    var network = NegotiationNetwork(seed: 5)
    let lan = ["10.1.0.0/24", "10.2.0.0/24"]
    network.add("a", lan: ["10.1.0.0/24"], peers: [("b", lan)])
    network.add("b", lan: lan, peers: [("a", ["10.1.0.0/24"])])
    #expect(network.run(seconds: 5) as Bool)
    let before = network.known(lan[0], of: "b", by: "a")
    for kept in [lan[1], lan[0]] {
      network.add("b", lan: [kept], peers: [("a", ["10.1.0.0/24"])])
      #expect(network.run(seconds: 5) as Bool)
      #expect(network.faults == [])
      let gone = lan.first { $0 != kept }!
      #expect(network.known(gone, of: "b", by: "a") == .withdrawn)
      let plan = AddressPlan(
        network.gateways["a"]!.configuration, agreements: network.gateways["a"]!.coordination.agreements)
      #expect(!plan.peers[0].routes.contains(Prefix(gone)!))
    }
    network.add("b", lan: lan, peers: [("a", ["10.1.0.0/24"])])
    #expect(network.run(seconds: 5) as Bool)
    #expect(network.faults == [])
    #expect(network.known(lan[0], of: "b", by: "a") == before)
    #expect(network.known(lan[1], of: "b", by: "a") == .asIs)
  }

  @Test func aClashThatAppearsLaterIsNegotiatedAndTheOthersStay() {
    var network = NegotiationNetwork(seed: 6)
    let lan = ["10.1.0.0/24", "10.2.0.0/24"]
    network.add("a", lan: ["10.1.0.0/24"], peers: [("b", lan)])
    network.add("b", lan: lan, peers: [("a", ["10.1.0.0/24", "10.2.0.0/24"])])
    #expect(network.run(seconds: 5) as Bool)
    let first = network.known(lan[0], of: "b", by: "a")
    #expect(network.known(lan[1], of: "b", by: "a") == .asIs)
    network.add("a", lan: ["10.1.0.0/24", "10.2.0.0/24"], peers: [("b", lan)])
    #expect(network.run(seconds: 5) as Bool)
    #expect(network.faults == [])
    #expect(network.known(lan[0], of: "b", by: "a") == first)
    guard case .known = network.known(lan[1], of: "b", by: "a") else { return #expect(Bool(false)) }
  }

  @Test func whatHasNoSolutionIsExplainedAtBothEnds() {
    let lan = ["10.1.0.0/24"]
    func outcome(_ change: (inout NegotiationNetwork) -> Void) -> (AddressAgreement.State?, AddressAgreement.State?) {
      var network = NegotiationNetwork(seed: 7)
      network.add("a", lan: lan, peers: [("b", lan)])
      network.add("b", lan: lan, peers: [("a", lan)])
      change(&network)
      let isQuiet = network.run(seconds: 300)
      #expect(isQuiet)
      #expect(network.faults == [])
      return (network.agreement("b", with: "a").local.first?.state, network.known(lan[0], of: "b", by: "a"))
    }
    // The prefix is not among the peer's.
    let unknown = outcome { $0.add("a", lan: lan, peers: [("b", ["10.7.0.0/24"])]) }
    #expect(unknown.0 == .refused(NegotiationFailure(.notPermitted)) && unknown.0 == unknown.1)
    // No pool fits.
    let full = outcome {
      $0.add("a", lan: lan, peers: [("b", lan)], pool: ["100.112.0.0/28"])
      $0.add("b", lan: lan, peers: [("a", lan)], pool: ["100.112.0.0/28"])
    }
    #expect(full.0 == .refused(NegotiationFailure(.noSpace)) && full.0 == full.1)
    // The two demand different things.
    let pinned = outcome { network in
      for (name, real, space) in [("a", lan[0], "100.1.0.0/24"), ("b", lan[0], "100.2.0.0/24")] {
        var configuration = network.gateways[name]!.configuration
        let pair = PrefixPair(real: Prefix(real)!, intermediate: Prefix(space)!)
        if name == "a" {
          configuration.peers[0].translation.theirs = [pair]
        } else {
          configuration.peers[0].translation.knownAs = [pair]
        }
        network.apply(name, configuration)
      }
    }
    guard case .refused(let failure) = pinned.0 else { return #expect(Bool(false), "\(pinned)") }
    #expect(failure.reason == .pinned && pinned.0 == pinned.1)
  }

  @Test func demandedSpacesAreUsedFromTheStartAndAgreedUpon() {
    var network = NegotiationNetwork(seed: 8)
    let lan = ["10.1.0.0/24"]
    network.add("a", lan: lan, peers: [("b", lan)])
    network.add("b", lan: lan, peers: [("a", lan)])
    var configuration = network.gateways["a"]!.configuration
    let own = PrefixPair(real: Prefix(lan[0])!, intermediate: Prefix("100.113.1.0/24")!)
    let theirs = PrefixPair(real: Prefix(lan[0])!, intermediate: Prefix("172.20.2.0/24")!)
    configuration.peers[0].translation.knownAs = [own]
    configuration.peers[0].translation.theirs = [theirs]
    network.apply("a", configuration)
    let plan = AddressPlan(configuration, agreements: network.gateways["a"]!.coordination.agreements)
    #expect(plan.peers[0].local == [own] && plan.peers[0].remote == [theirs])
    #expect(plan.peers[0].routes == [theirs.intermediate])
    #expect(network.run(seconds: 5) as Bool)
    #expect(network.faults == [])
    #expect(network.known(lan[0], of: "a", by: "b") == .known(own.intermediate))
    #expect(network.known(lan[0], of: "b", by: "a") == .known(theirs.intermediate))
  }

  @Test func aPeerThatNeverAnswersChangesNothing() {
    var network = NegotiationNetwork(seed: 9)
    network.add("a", lan: ["10.1.0.0/24"], peers: [("b", ["10.2.0.0/24"])])
    let before = AddressPlan(network.gateways["a"]!.configuration)
    let isQuiet = network.run(seconds: 3600)
    #expect(!isQuiet)
    // Less and less often, and then once a minute.
    #expect((58...68).contains(network.gateways["a"]!.sent), "\(network.gateways["a"]!.sent)")
    #expect(network.agreement("a", with: "b").isUnanswered)
    #expect(network.gateways["a"]!.coordination.takeChanges().contains("b"))
    #expect(
      AddressPlan(network.gateways["a"]!.configuration, agreements: network.gateways["a"]!.coordination.agreements)
        == before)
    // It starts after all.
    network.add("b", lan: ["10.2.0.0/24"], peers: [("a", ["10.1.0.0/24"])])
    #expect(network.run(seconds: 5) as Bool)
    #expect(network.faults == [] && !network.agreement("a", with: "b").isUnanswered)
  }

  @Test func whoHasNothingToOfferKeepsQuiet() {
    var network = NegotiationNetwork(seed: 10)
    network.add("a", lan: [], peers: [("b", ["10.2.0.0/24"])])
    #expect(network.run(seconds: 100) as Bool)
    #expect(network.gateways["a"]!.sent == 0)
    network.add("b", lan: ["10.2.0.0/24"], peers: [("a", ["10.1.0.1/32"])])
    #expect(network.run(seconds: 100) as Bool)
    #expect(network.known("10.2.0.0/24", of: "b", by: "a") == .asIs)
    #expect(network.gateways["a"]!.sent <= 3)
  }

  @Test func aSpaceOutsideThePoolIsNotAccepted() {
    var network = NegotiationNetwork(seed: 11)
    let lan = ["10.1.0.0/24"]
    // b would like to be known by addresses of somebody else.
    network.add("a", lan: lan, peers: [("b", lan)])
    network.add("b", lan: lan, peers: [("a", lan)], pool: ["8.8.0.0/16"])
    #expect(network.run(seconds: 60) as Bool)
    guard case .known(let space) = network.known(lan[0], of: "b", by: "a") else { return #expect(Bool(false)) }
    #expect(IntermediateSpace.defaultPool[0].covers(space))
  }

  /// One who offers four networks that clash, and another who offers one: of a pool of four, the first gets two.
  @Test(arguments: 20..<30 as Range<UInt64>) func whoOffersMuchLeavesRoom(seed: UInt64) {
    var network = NegotiationNetwork(seed: seed)
    let greedy = (0..<4).map { "10.1.\($0).0/24" }
    network.add(
      "a", lan: ["10.1.0.0/22"], peers: [("bob", greedy), ("carol", ["10.1.9.0/24"]), ("dave", ["10.1.9.0/24"])],
      pool: ["100.64.0.0/22"])
    network.add("bob", lan: greedy, peers: [("a", ["10.1.0.0/22"])], pool: ["100.65.0.0/16"])
    _ = network.run(seconds: 60) as Bool
    let taken = greedy.filter { if case .known? = network.known($0, of: "bob", by: "a") { true } else { false } }
    #expect((1...2).contains(taken.count), "\(taken)")
    // Both clash with each other, so that one of them needs a space.
    for name in ["carol", "dave"] {
      network.add(name, lan: ["10.1.9.0/24"], peers: [("a", ["10.1.0.0/22"])], pool: ["100.66.0.0/16"])
    }
    _ = network.run(seconds: 60) as Bool
    let others = ["carol", "dave"].map { network.known("10.1.9.0/24", of: $0, by: "a") }
    #expect(others.allSatisfy { $0 == .asIs || { if case .known? = $0 { true } else { false } }($0) }, "\(others)")
  }

  /// Over links that lose, duplicate and reorder, with clashes of all kinds, spaces demanded, pools too small,
  /// restarts and other prefixes on the way: all pairs end in agreement or in an explained failure, the same at both
  /// ends, and then are silent.
  @Test(arguments: 0..<250 as Range<UInt64>) func everyPairComesToAnEnd(seed: UInt64) {
    var network = NegotiationNetwork(seed: seed)
    network.lost = [0, 100, 300, 500].randomElement(using: &network.numbers)!
    network.duplicated = [0, 300].randomElement(using: &network.numbers)!
    network.longestDelay = [2_000_000, 300_000_000, 3_000_000_000].randomElement(using: &network.numbers)!
    var model = NegotiationModel(seed: seed)
    for name in model.names { network.apply(name, model.configuration(name)) }
    for _ in 0..<Int(seed % 5) {
      _ = network.run(seconds: .random(in: 0...20, using: &network.numbers))
      let name = model.names.randomElement(using: &network.numbers)!
      if Bool.random(using: &network.numbers) {
        network.restart(name)
      } else {
        model.change(name)
        network.apply(name, model.configuration(name))
      }
    }
    // Whoever has nothing to offer may have to wait until it is asked.
    for _ in 0..<4 { network.pass(seconds: 310) }
    let before = network.gateways.mapValues(\.sent)
    let isQuiet = network.run(seconds: 4 * 3600)
    #expect(isQuiet)
    #expect(network.faults == [])
    #expect(network.longestBody <= AddressMessage.longest)
    if network.lost == 0 {
      for (name, gateway) in network.gateways {
        // Every five minutes, and every half a minute where somebody is there who would not speak first.
        let isSomebodyMute = network.gateways.values.contains { $0.configuration.localPrefixes.isEmpty }
        let limit = (model.names.count - 1) * (isSomebodyMute ? 490 : 60)
        #expect(gateway.sent - before[name]! <= limit, "\(name) sent \(gateway.sent - before[name]!)")
      }
    }
    #expect(network.gateways.values.allSatisfy { $0.coordination.malformed == 0 })
  }
}
