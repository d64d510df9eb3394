import PacketIO
import Testing

@testable import Dataplane

/// The search for the path MTU (RFC 8899), on a virtual clock, over a road that swallows what is too large.
@Suite struct PathMTUTests {
  /// A path of some size, which may lose anything, and a peer that answers or does not.
  private struct Road {
    var mtu: PathMTU
    var size: Int
    var now: UInt64 = 1_000_000_000
    var roundTrip: UInt64 = 20_000_000
    var answers = true
    var lossPercent = 0
    var numbers = SeededNumbers(seed: 1)
    var nextNumber: UInt64 = 0
    var answersUnderway: [(at: UInt64, number: UInt64)] = []
    /// Sizes of probes that were sent.
    var probes: [Int] = []

    init(maximum: Int, size: Int) {
      mtu = PathMTU(maximum: maximum, raiseInterval: 60_000_000_000)
      self.size = size
    }

    mutating func run(seconds: Double, isActive: Bool = true) {
      let end = now + UInt64(seconds * 1e9)
      while now < end {
        now += 100_000_000
        for answer in answersUnderway where answer.at <= now {
          mtu.acknowledge(answer.number, now: MonotonicTime(nanoseconds: answer.at))
        }
        let time = now
        answersUnderway.removeAll { $0.at <= time }
        var number = nextNumber
        let sent = mtu.poll(now: MonotonicTime(nanoseconds: now), isActive: isActive) {
          number += 1
          return number
        }
        nextNumber = number
        for probe in [sent.0, sent.1].compactMap({ $0 }) {
          probes.append(probe.size)
          let isLost = Int.random(in: 0..<100, using: &numbers) < lossPercent
          if answers, !isLost, probe.size <= size { answersUnderway.append((now + roundTrip, probe.number)) }
        }
      }
    }
  }

  @Test func aPathThatTakesEverythingIsConfirmedAtOnce() {
    var road = Road(maximum: 1500, size: 1500)
    road.run(seconds: 1)
    #expect(road.mtu.phase == .complete && road.mtu.current == 1500)
    road.run(seconds: 600)
    #expect(road.mtu.current == 1500 && road.mtu.blackHoles == 0)
    #expect(road.probes.allSatisfy { $0 == 0 || $0 == 1500 })
    #expect(road.mtu.roundTrip == 20_000_000)
  }

  /// Whatever the path takes is found, as exactly as promised, and never more.
  @Test(arguments: [1200, 1201, 1215, 1216, 1217, 1280, 1300, 1400, 1437, 1472, 1492, 1499])
  func aSmallerPathIsFound(size: Int) {
    var road = Road(maximum: 1500, size: size)
    road.run(seconds: 40)
    #expect(road.mtu.phase == .complete)
    #expect(road.mtu.current <= size && road.mtu.current > size - PathMTU.precision - 1)
    #expect(road.probes.allSatisfy { $0 <= 1500 })
  }

  @Test func jumboPaths() {
    for (size, least) in [(9000, 9000), (8000, 7980), (1500, 1500)] {
      var road = Road(maximum: 9000, size: size)
      road.run(seconds: 60)
      #expect(road.mtu.current <= size && road.mtu.current >= least, "\(size)")
    }
  }

  /// The path shrinks under traffic: a black hole, noticed within two seconds.
  @Test func aPathThatShrinks() {
    var road = Road(maximum: 1500, size: 1500)
    road.run(seconds: 5)
    road.size = 1400
    road.run(seconds: 2.5)
    #expect(road.mtu.current == PathMTU.base && road.mtu.blackHoles == 1)
    road.run(seconds: 30)
    #expect(road.mtu.current == 1400 && road.mtu.phase == .complete)
    // And grows again, which is tried after the interval.
    road.size = 1500
    road.run(seconds: 20)
    #expect(road.mtu.current == 1400)
    road.run(seconds: 60)
    #expect(road.mtu.current == 1500)
  }

  /// Losses that have nothing to do with size do not make the path small for good.
  @Test(arguments: [5, 20, 40])
  func lossesAreNotSizes(percent: Int) {
    var road = Road(maximum: 1500, size: 1500)
    road.lossPercent = percent
    road.run(seconds: 600)
    // Bad luck may have made it smaller; the next look puts it right.
    road.lossPercent = 0
    road.run(seconds: 70)
    #expect(road.mtu.current == 1500)
    road.size = 1400
    road.lossPercent = percent / 2
    road.run(seconds: 120)
    #expect(road.mtu.current <= 1400 && road.mtu.current >= PathMTU.base)
  }

  /// A peer that is gone answers nothing, large or small: no reason to think the path small.
  @Test func silenceSaysNothing() {
    var road = Road(maximum: 1500, size: 1500)
    road.run(seconds: 5)
    road.answers = false
    road.run(seconds: 60)
    #expect(road.mtu.current == 1500 && road.mtu.blackHoles == 0)
  }

  /// One that never answers is asked ever more seldom.
  @Test func aPeerThatKnowsNoProbes() {
    var road = Road(maximum: 1500, size: 1500)
    road.answers = false
    road.run(seconds: 3600)
    #expect(road.mtu.phase == .unconfirmed && road.mtu.current == 1500)
    #expect(road.probes.count < 2 * 140)
  }

  @Test func withoutTrafficNothingIsSent() {
    var road = Road(maximum: 1500, size: 1500)
    road.run(seconds: 5)
    road.probes = []
    road.run(seconds: 100, isActive: false)
    #expect(road.probes == [])
  }

  @Test func answersToNothingChangeNothing() {
    var road = Road(maximum: 1500, size: 1300)
    road.run(seconds: 40)
    let before = road.mtu.current
    for number in 0..<1000 as Range<UInt64> { road.mtu.acknowledge(number, now: MonotonicTime(nanoseconds: road.now)) }
    #expect(road.mtu.current == before)
  }

  @Test func aMaximumBelowTheBase() {
    var road = Road(maximum: 600, size: 1200)
    road.run(seconds: 30)
    #expect(road.mtu.current == PathMTU.base)
  }
}
