import PacketIO
import Testing

@testable import Dataplane

/// Two path selections against each other, over simulated paths, from seeds.
@Suite struct PathSelectionTests {
  private static let seeds: [UInt64] = [1, 2, 3]

  /// Each set of four paths that work: both sides take the best of them, soon and for good.
  @Test func bothTakeTheBestPathThatWorks() {
    for working in 1..<16 {
      for seed in Self.seeds.prefix(2) {
        var network = PathNetwork(seed: seed, wires: 4)
        for wire in 0..<4 {
          network.wires[wire].set(up: working >> wire & 1 == 1)
          network.wires[wire].delay = UInt64.random(in: 1_000_000...80_000_000, using: &network.numbers)
        }
        let start = network.now
        network.run(seconds: 15)
        let best = working.trailingZeroBitCount
        #expect(network.wire(.a) == best && network.wire(.b) == best, "paths \(working), seed \(seed)")
        #expect(network.longestGap(since: start) < 1.2, "paths \(working), seed \(seed)")
        // The first that answers, the best that does, and whatever the other side does first.
        #expect(network.switches <= 6, "paths \(working), seed \(seed)")
        let settled = network.switches
        network.spacing = 100_000_000
        network.run(seconds: 20)
        #expect(network.switches == settled)
        #expect(network.isAuthentic)
      }
    }
  }

  /// Traffic comes back to the better path of the list because it stands higher, however much slower it is: several relays
  /// of one gateway are such paths, and nobody goes to and fro between them for a few milliseconds.
  @Test func returnIsByRankAndNeverByMilliseconds() {
    for seed in Self.seeds {
      var network = PathNetwork(seed: seed, wires: 2)
      (network.wires[0].delay, network.wires[1].delay) = (80_000_000, 1_000_000)
      network.wires[0].set(up: false)
      network.run(seconds: 10)
      #expect(network.wire(.a) == 1 && network.wire(.b) == 1, "seed \(seed)")
      network.wires[0].set(up: true)
      network.run(seconds: 25)
      #expect(network.wire(.a) == 0 && network.wire(.b) == 0, "seed \(seed)")
      let settled = network.switches
      for delay in [1_000_000, 40_000_000, 2_000_000, 79_000_000] as [UInt64] {
        network.wires[1].delay = delay
        network.run(seconds: 15)
      }
      #expect(network.switches == settled, "seed \(seed)")
    }
  }

  /// What is learned of a peer comes last in its list, but before the relays that lead to it.
  @Test func whereThePeerIsFoundIsBetterThanARelay() throws {
    let path = { (port: UInt16) -> Path in Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0201), port: port)) }
    for relays in [0, 1, 2] {
      let listed = [1, 2, 3].map { ConfiguredPath(path: path($0), isRelayed: Int($0) + relays > 3) }
      var selection = PathSelection(listed, now: MonotonicTime(nanoseconds: 1))
      selection.consider(path(9), now: MonotonicTime(nanoseconds: 2))
      let ports = selection.candidates.sorted { $0.order < $1.order }.map { $0.path.endpoint.port }
      let expected: [UInt16] = relays == 0 ? [1, 2, 3, 9] : relays == 1 ? [1, 2, 9, 3] : [1, 9, 2, 3]
      #expect(ports == expected)
    }
    // Of several the peer's list says which is better, whichever it was heard on first.
    for ports in [[7, 8], [8, 7]] as [[UInt16]] {
      var selection = PathSelection(
        [ConfiguredPath(path: path(1), isRelayed: true)], now: MonotonicTime(nanoseconds: 1))
      for port in ports {
        let probe = ProbeMessage(number: 1, tieBreaker: 1, rank: UInt8(port - 7), isUsed: true)
        selection.receive(probe, by: path(port), isNewest: true, now: MonotonicTime(nanoseconds: 2))
      }
      let order = selection.candidates.sorted { $0.order < $1.order }.map(\.path.endpoint.port)
      #expect(order == [7, 8, 1])
    }
    let alone = ConfiguredPath(path: path(1))
    #expect(![alone].areChoice && [alone, alone].areChoice)
    #expect([ConfiguredPath(path: path(1), isRelayed: true)].areChoice)
  }

  /// The best path is cut under traffic, in both directions or in one, and comes back.
  @Test(arguments: [[PathNetwork.Side.a, .b], [.a], [.b]])
  func aCutPathIsLeftAndTakenAgain(directions: [PathNetwork.Side]) {
    for seed in Self.seeds {
      var network = PathNetwork(seed: seed, wires: 3)
      network.run(seconds: 20)
      let before = network.switches
      let cut = network.now
      for direction in directions { network.wires[0].isUp[direction.rawValue] = false }
      network.run(seconds: 10)
      #expect(network.wire(.a) == 1 && network.wire(.b) == 1, "seed \(seed)")
      #expect(network.longestGap(since: cut) < (directions.count == 2 ? 1.2 : 2.5), "seed \(seed)")
      #expect(network.switches - before <= 4, "seed \(seed)")
      let restored = network.now
      network.wires[0].set(up: true)
      network.run(seconds: 25)
      #expect(network.wire(.a) == 0 && network.wire(.b) == 0, "seed \(seed)")
      #expect(network.longestGap(since: restored) < 0.2, "seed \(seed)")
      #expect(network.switches - before <= 6, "seed \(seed)")
      #expect(network[.a].changes.last?.reason != .nothingAnswers)
    }
  }

  /// The peer says that it is at a place on no list, while nothing on the lists works: traffic goes there once it has
  /// answered, and a place that does not answer is asked for a while.
  @Test(arguments: [true, false])
  func aPlaceThatThePeerNames(answers: Bool) {
    for seed in Self.seeds {
      var network = PathNetwork(seed: seed, wires: 3, listed: [.a: [0, 1], .b: [0, 1]])
      network.run(seconds: 5)
      network.wires[0].set(up: false)
      network.wires[1].set(up: false)
      network.wires[2].set(up: answers)
      let named = PathNetwork.path(.a, 2)
      network[.a].known.insert(named)
      network[.a].selection.namedCredit.earn(1000)
      network[.a].selection.consider(named, now: MonotonicTime(nanoseconds: network.now))
      #expect(network.wire(.a) != 2)
      network.run(seconds: 3)
      #expect((network.wire(.a) == 2) == answers && (network.wire(.b) == 2) == answers, "seed \(seed)")
      #expect(network.isAuthentic)
      guard !answers else { continue }
      network.run(seconds: 3)
      func asked() -> UInt64? { network[.a].selection.candidates.first { $0.path == named }?.meter.sent }
      let before = asked()
      #expect(before.map { (3...40).contains($0) } == true)
      network.run(seconds: 30)
      #expect(asked() == before)
      network.run(seconds: 60)
      #expect(asked() == nil)
    }
  }

  /// To eight places that it names goes no more than came from it, until it is heard there.
  @Test func whatGoesToNamedPlacesWasPaidFor() {
    let path = { (port: UInt16) -> Path in Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0201), port: port)) }
    var selection = PathSelection(
      [ConfiguredPath(path: path(1)), ConfiguredPath(path: path(2))], now: MonotonicTime(nanoseconds: 1))
    var (numbers, now): (UInt64, UInt64) = (1, 1_000_000_000)
    func asked(seconds: Int, received: UInt64 = 0) -> Int {
      var count = 0
      for _ in 0..<10 * seconds {
        now += 100_000_000
        let traffic = PathSelection.Traffic(
          isActive: true, lastHeard: MonotonicTime(nanoseconds: now), received: received)
        let probes = selection.poll(traffic, now: MonotonicTime(nanoseconds: now)) {
          numbers += 1
          return numbers
        }
        count += probes.count { $0.path.endpoint.port > 2 }
      }
      return count
    }
    func name(credit: Int) {
      selection.namedCredit.earn(credit)
      for port in 3...10 as ClosedRange<UInt16> {
        selection.consider(path(port), now: MonotonicTime(nanoseconds: now))
      }
    }
    name(credit: 300)
    #expect(asked(seconds: 4) == 3)
    // Again, and nothing came: nothing goes.
    name(credit: 0)
    #expect(asked(seconds: 4) == 0)
    name(credit: 0)
    #expect(asked(seconds: 4, received: 1000) == 10)
  }

  /// Traffic of one direction only: whoever sends notices, and the other follows.
  @Test(arguments: PathNetwork.Side.allCases)
  func trafficOfOneDirection(side: PathNetwork.Side) {
    for seed in Self.seeds {
      var network = PathNetwork(seed: seed, wires: 2)
      network[side].sends = false
      network.run(seconds: 10)
      let cut = network.now
      network.wires[0].set(up: false)
      network.run(seconds: 10)
      #expect(network.wire(.a) == 1 && network.wire(.b) == 1, "seed \(seed)")
      let other: PathNetwork.Side = side
      let arrivals = [cut] + network[other].arrivals.filter { $0 > cut }
      let gap = zip(arrivals, arrivals.dropFirst()).map { $1 - $0 }.max() ?? UInt64.max
      #expect(gap < 1_300_000_000, "seed \(seed): \(gap)")
    }
  }

  /// A path that comes and goes every few seconds is trusted less and less.
  @Test func aFlappingPathIsAvoided() {
    for seed in Self.seeds {
      var network = PathNetwork(seed: seed, wires: 2)
      network.run(seconds: 10)
      let before = network.switches
      network.spacing = 50_000_000
      for _ in 0..<12 {
        network.wires[0].set(up: false)
        network.run(seconds: 8)
        network.wires[0].set(up: true)
        network.run(seconds: 8)
      }
      // Without hysteresis these would be 48.
      #expect(network.switches - before <= 14, "seed \(seed): \(network.switches - before)")
      // And forgiven in the end.
      network.run(seconds: 120)
      #expect(network.wire(.a) == 0 && network.wire(.b) == 0, "seed \(seed)")
    }
  }

  /// A fifth of all packets is lost: on every path alike, traffic stays; on the best only, it goes where less is lost.
  @Test func lossDoesNotMakeItFlap() {
    for seed in Self.seeds {
      var network = PathNetwork(seed: seed, wires: 2)
      for wire in 0..<2 { network.wires[wire].lost = 200 }
      network.spacing = 50_000_000
      network.run(seconds: 120)
      #expect(network.switches <= 8, "seed \(seed): \(network.switches)")
      #expect(network.longestGap(since: 3_000_000_000) < 1, "seed \(seed)")
      #expect(network.wire(.a) == network.wire(.b))

      network = PathNetwork(seed: seed, wires: 2)
      network.run(seconds: 10)
      network.spacing = 50_000_000
      network.wires[0].lost = 200
      network.run(seconds: 25)
      #expect(network.wire(.a) == 1 && network.wire(.b) == 1, "seed \(seed)")
      let reasons = PathNetwork.Side.allCases.map { network[$0].changes.last?.reason }
      #expect(Set(reasons) == [.previousLossy, .partnerUses], "seed \(seed)")
      let before = network.switches
      network.run(seconds: 120)
      #expect(network.switches - before <= 6, "seed \(seed)")
      network.wires[0].lost = 0
      network.run(seconds: 60)
      #expect(network.wire(.a) == 0 && network.wire(.b) == 0, "seed \(seed)")
    }
  }

  /// Side b lists nothing and learns everything; the translator in front of a gives it another port now and then.
  @Test func aPeerBehindATranslatorIsFollowed() {
    for seed in Self.seeds {
      for leads in [true, false] {
        var network = PathNetwork(seed: seed, wires: 2, listed: [.a: [0, 1], .b: []], aLeads: leads)
        network.wires[0].mapping = 30_000
        network.wires[1].mapping = 31_000
        network.run(seconds: 15)
        #expect(network.wire(.a) == 0 && network.wire(.b) == 0)
        for step in 1...5 {
          let moved = network.now
          network.wires[0].mapping = 30_000 + UInt16(step)
          network.run(seconds: 8)
          #expect(network.wire(.a) == 0 && network.wire(.b) == 0, "seed \(seed)")
          #expect(network.longestGap(since: moved) < 0.2, "seed \(seed)")
          let ports = network[.b].selection.candidates.map(\.path.endpoint.port)
          #expect(ports.sorted() == [30_000 + UInt16(step), 31_000], "the same paths, not more")
        }
        #expect(network[.a].selection.candidates[0].seen?.port == 30_005)
      }
    }
  }

  /// What a transport says of a stream is believed at once.
  @Test func aStreamThatEndsIsLeftAtOnce() {
    var network = PathNetwork(seed: 1, wires: 3)
    network.wires[0].set(up: false)
    network.wires[1].isStream = true
    network.run(seconds: 15)
    #expect(network.wire(.a) == 1 && network.wire(.b) == 1)
    let reset = network.now
    network.wires[1].set(up: false)
    network.reset(1)
    network.run(seconds: 2)
    #expect(network.wire(.a) == 2 && network.wire(.b) == 2)
    #expect(network.longestGap(since: reset) < 0.1)
    network.wires[1].set(up: true)
    network.run(seconds: 20)
    #expect(network.wire(.a) == 1 && network.wire(.b) == 1)
  }

  /// A peer that answers no probes is where it is heard.
  @Test func aPeerThatKnowsNoProbes() {
    var network = PathNetwork(seed: 1, wires: 2)
    network[.b].answers = false
    network.run(seconds: 10)
    #expect(network.wire(.a) == 0)
    #expect(network.longestGap(since: network.now - 5_000_000_000) < 0.2)
  }

  /// Without traffic a selection is quiet, and a path that broke meanwhile is known before anything is sent.
  @Test func whenNothingIsSent() {
    var network = PathNetwork(seed: 3, wires: 3)
    for side in PathNetwork.Side.allCases { network[side].sends = false }
    network.run(seconds: 30)
    #expect(network.wire(.a) == 0 && network.wire(.b) == 0)
    let before = network[.a].probes
    network.run(seconds: 600)
    #expect(network[.a].probes - before <= 130, "a probe of each path in some ten or twenty seconds")
    network.wires[0].set(up: false)
    network.run(seconds: 60)
    #expect(network.wire(.a) == 1 && network.wire(.b) == 1)
  }

  /// Anything may happen; when it ends, both sides come to the best path, and traffic has never stood still for long
  /// while there was one that worked all the time.
  @Test func afterAnything() {
    for seed in 1...24 as ClosedRange<UInt64> {
      var network = PathNetwork(seed: seed, wires: 4)
      for wire in 0..<4 {
        network.wires[wire].delay = UInt64.random(in: 1_000_000...150_000_000, using: &network.numbers)
      }
      network.run(seconds: 5)
      let start = network.now
      for _ in 0..<25 {
        let wire = Int.random(in: 0..<3, using: &network.numbers)
        switch Int.random(in: 0..<6, using: &network.numbers) {
        case 0, 1: network.wires[wire].set(up: false)
        case 2, 3: network.wires[wire].set(up: true)
        case 4: network.wires[wire].isUp[Int(network.numbers.next() & 1)] = false
        default: network.wires[wire].mapping += 1
        }
        network.run(seconds: Double.random(in: 0.1...6, using: &network.numbers))
        #expect(network.isAuthentic)
      }
      #expect(network.longestGap(since: start) < 6, "seed \(seed): \(network.longestGap(since: start))")
      network.spacing = 100_000_000
      network.run(seconds: 120)
      let works = (0..<4).filter { network.wires[$0].isUp.allSatisfy { $0 } }
      #expect(network.wire(.a) == works.first && network.wire(.b) == works.first, "seed \(seed)")
      let settled = network.switches
      network.run(seconds: 30)
      #expect(network.switches == settled, "seed \(seed)")
      for side in PathNetwork.Side.allCases {
        #expect(network[side].selection.candidates.count <= ConfiguredPath.listCapacity + PathSelection.learnedCapacity)
      }
    }
  }
}
