import PacketIO
import Testing

@testable import Dataplane

/// The search for the path MTU (RFC 8899), on a virtual clock, over a path that swallows what is too large.
@Suite struct PathMTUTests {
  /// A path of some size, which may lose anything, and a peer that answers or does not.
  private struct ConfiguredPath {
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
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.run(seconds: 1)
    #expect(path.mtu.phase == .complete && path.mtu.current == 1500)
    path.run(seconds: 600)
    #expect(path.mtu.current == 1500 && path.mtu.blackHoles == 0)
    #expect(path.probes.allSatisfy { $0 == 0 || $0 == 1500 })
    #expect(path.mtu.roundTrip == 20_000_000)
  }

  /// Whatever the path takes is found, as exactly as promised, and never more.
  @Test(arguments: [1200, 1201, 1215, 1216, 1217, 1280, 1300, 1400, 1437, 1472, 1492, 1499])
  func aSmallerPathIsFound(size: Int) {
    var path = ConfiguredPath(maximum: 1500, size: size)
    path.run(seconds: 40)
    #expect(path.mtu.phase == .complete)
    #expect(path.mtu.current <= size && path.mtu.current > size - PathMTU.precision - 1)
    #expect(path.probes.allSatisfy { $0 <= 1500 })
  }

  @Test func jumboPaths() {
    for (size, least) in [(9000, 9000), (8000, 7980), (1500, 1500)] {
      var path = ConfiguredPath(maximum: 9000, size: size)
      path.run(seconds: 60)
      #expect(path.mtu.current <= size && path.mtu.current >= least, "\(size)")
    }
  }

  /// The path shrinks under traffic: a black hole, noticed within two seconds.
  @Test func aPathThatShrinks() {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.run(seconds: 5)
    path.size = 1400
    path.run(seconds: 2.5)
    #expect(path.mtu.current == PathMTU.base && path.mtu.blackHoles == 1)
    path.run(seconds: 30)
    #expect(path.mtu.current == 1400 && path.mtu.phase == .complete)
    // And grows again, which is tried after the interval.
    path.size = 1500
    path.run(seconds: 20)
    #expect(path.mtu.current == 1400)
    path.run(seconds: 60)
    #expect(path.mtu.current == 1500)
  }

  /// Losses that have nothing to do with size do not make the path small for good.
  @Test(arguments: [5, 20, 40])
  func lossesAreNotSizes(percent: Int) {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.lossPercent = percent
    path.run(seconds: 600)
    // Bad luck may have made it smaller; the next look puts it right.
    path.lossPercent = 0
    path.run(seconds: 70)
    #expect(path.mtu.current == 1500)
    path.size = 1400
    path.lossPercent = percent / 2
    path.run(seconds: 120)
    #expect(path.mtu.current <= 1400 && path.mtu.current >= PathMTU.base)
  }

  /// A peer that is gone answers nothing, large or small: no reason to think the path small.
  @Test func silenceSaysNothing() {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.run(seconds: 5)
    path.answers = false
    path.run(seconds: 60)
    #expect(path.mtu.current == 1500 && path.mtu.blackHoles == 0)
  }

  /// One that never answers is asked ever more seldom.
  @Test func aPeerThatKnowsNoProbes() {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.answers = false
    path.run(seconds: 3600)
    #expect(path.mtu.phase == .unconfirmed && path.mtu.current == 1500)
    #expect(path.probes.count < 2 * 140)
  }

  @Test func withoutTrafficNothingIsSent() {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.run(seconds: 5)
    path.probes = []
    path.run(seconds: 100, isActive: false)
    #expect(path.probes == [])
  }

  @Test func answersToNothingChangeNothing() {
    var path = ConfiguredPath(maximum: 1500, size: 1300)
    path.run(seconds: 40)
    let before = path.mtu.current
    for number in 0..<1000 as Range<UInt64> { path.mtu.acknowledge(number, now: MonotonicTime(nanoseconds: path.now)) }
    #expect(path.mtu.current == before)
  }

  @Test func aMaximumBelowTheBase() {
    var path = ConfiguredPath(maximum: 600, size: 1200)
    path.run(seconds: 30)
    #expect(path.mtu.current == PathMTU.base)
  }
}
