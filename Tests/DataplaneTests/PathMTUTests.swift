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
    /// Packets of the peer come in.
    var isHeard = true
    /// The router in front of what is too small says so.
    var tells = false
    /// Bytes that this machine's link takes.
    var link = Int.max
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

    /// Packets of the traffic that were too large.
    var lost = 0

    /// A packet leaves; whoever refuses it may say so.
    private mutating func carry(_ bytes: Int, isProbe: Bool = false) {
      let time = MonotonicTime(nanoseconds: now)
      if bytes > link {
        mtu.refuse(over: link, by: .link, now: time)
      } else if bytes > size, tells {
        mtu.refuse(over: size, by: .icmp, now: time)
      }
      if !isProbe, bytes > min(size, link) { lost += 1 }
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
        let heard = MonotonicTime(nanoseconds: isHeard ? now : 0)
        let sent = mtu.poll(now: MonotonicTime(nanoseconds: now), isActive: isActive, heard: heard) {
          number += 1
          return number
        }
        nextNumber = number
        // A large packet of the traffic, as far as it may go.
        if isActive { carry(mtu.current) }
        for probe in [sent.0, sent.1].compactMap({ $0 }) {
          probes.append(probe.size)
          carry(probe.size, isProbe: true)
          let isLost = Int.random(in: 0..<100, using: &numbers) < lossPercent
          if answers, !isLost, probe.size <= min(size, link) { answersUnderway.append((now + roundTrip, probe.number)) }
        }
      }
    }
  }

  @Test func aPathThatTakesEverythingIsConfirmedAtOnce() {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    #expect(path.mtu.current == PathMTU.base && path.mtu.trial == 1500 && path.mtu.source == .base)
    path.run(seconds: 0.2)
    #expect(path.mtu.phase == .complete && path.mtu.current == 1500 && path.mtu.source == .probes)
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

  /// One that never answers is asked ever more seldom. While it is not heard either, nothing is concluded.
  @Test(arguments: [false, true])
  func aPeerThatKnowsNoProbes(isHeard: Bool) {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.answers = false
    path.isHeard = isHeard
    path.run(seconds: 3)
    let size = isHeard ? 1500 : PathMTU.base
    #expect(path.mtu.phase == (isHeard ? .classical : .unconfirmed) && path.mtu.current == size)
    #expect(path.mtu.source == (isHeard ? .configured : .base))
    path.run(seconds: 3600)
    #expect(path.mtu.current == size)
    #expect(path.probes.count < 2 * 140)
    // It is a new version now, or comes at last.
    (path.answers, path.isHeard) = (true, true)
    path.run(seconds: isHeard ? 31 : 2)
    #expect(path.mtu.source == .probes && path.mtu.current == 1500)
  }

  /// Towards such a peer, routers are believed, and asked again after a while.
  @Test(arguments: [1200, 1300, 1460])
  func classicalDiscovery(size: Int) {
    var path = ConfiguredPath(maximum: 1500, size: size)
    (path.answers, path.tells) = (false, true)
    path.run(seconds: 4)
    #expect(path.mtu.current == size && path.mtu.source == .icmp)
    // No packet was lost for it: probes had told before.
    #expect(path.lost == 0)
    // Below the base nobody is believed.
    path.size = size - 60
    path.run(seconds: 1)
    #expect(path.mtu.current == (size - 60 < PathMTU.base ? size : size - 60))
    path.size = 1500
    path.run(seconds: 50)
    #expect(path.mtu.current < 1500)
    path.run(seconds: 60)
    #expect(path.mtu.current == 1500 && path.mtu.source == .configured)
  }

  /// A router that goes on saying so costs a probe at each interval, and no packet.
  @Test func aSmallPathIsNotRaisedByTraffic() {
    var path = ConfiguredPath(maximum: 1500, size: 1300)
    (path.answers, path.tells) = (false, true)
    path.run(seconds: 900)
    #expect(path.mtu.current == 1300 && path.lost == 0)
    #expect(path.probes.count { $0 == 1500 } > 10)
  }

  /// What the local link refuses is known at once, whether the peer answers or not.
  @Test(arguments: [true, false], [1460, 1100, 600, 100])
  func theLocalLinkIsBelieved(answers: Bool, link: Int) {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    (path.answers, path.link) = (answers, link)
    path.run(seconds: 4)
    let found = max(link, PathMTU.least)
    #expect(path.mtu.current == found)
    if link >= PathMTU.least { #expect(path.mtu.source == (answers ? .probes : .link)) }
    if link >= PathMTU.base { #expect(path.lost == 0) }
    path.link = 1500
    path.run(seconds: 130)
    #expect(path.mtu.current == 1500 && path.mtu.source == (answers ? .probes : .configured))
    // And smaller again, under traffic.
    path.link = 1400
    path.run(seconds: 0.2)
    #expect(path.mtu.current == 1400)
  }

  /// Messages that anybody could have made up change nothing while the peer answers, and nothing below the base ever.
  @Test func whatIsNotBelieved() {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.run(seconds: 2)
    path.mtu.refuse(over: 1300, by: .icmp, now: MonotonicTime(nanoseconds: path.now))
    #expect(path.mtu.current == 1500)
    var other = ConfiguredPath(maximum: 1500, size: 1500)
    other.answers = false
    other.run(seconds: 4)
    for size in [0, 68, 576, 1199] {
      other.mtu.refuse(over: size, by: .icmp, now: MonotonicTime(nanoseconds: other.now))
    }
    #expect(other.mtu.current == 1500)
  }

  /// Nothing of the base's size gets through: what does is found nevertheless, and soon.
  @Test(arguments: [1199, 1100, 1000, 900, 576, 512])
  func aPathBelowTheBase(size: Int) {
    for shrinks in [false, true] {
      var path = ConfiguredPath(maximum: 1500, size: shrinks ? 1500 : size)
      if shrinks { path.run(seconds: 3) }
      path.size = size
      path.run(seconds: 4)
      #expect(path.mtu.current <= size && path.mtu.current >= PathMTU.least, "\(shrinks)")
      path.run(seconds: 40)
      #expect(path.mtu.phase == .complete)
      #expect(path.mtu.current <= size && path.mtu.current > size - PathMTU.precision - 1)
      path.size = 1500
      path.run(seconds: 120)
      #expect(path.mtu.current == 1500)
    }
  }

  /// A way round a satellite or two: answers come late, and are answers.
  @Test(arguments: [250, 700, 1500])
  func longRoundTrips(milliseconds: UInt64) {
    var path = ConfiguredPath(maximum: 1500, size: 1500)
    path.roundTrip = milliseconds * 1_000_000
    path.run(seconds: 10)
    #expect(path.mtu.current == 1500 && path.mtu.source == .probes)
    path.size = 1400
    path.run(seconds: 60)
    #expect(path.mtu.current == 1400 && path.mtu.blackHoles == 1)
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

  @Test(arguments: [(600, 1200, 600), (1100, 1000, 1000), (1100, 1100, 1100)])
  func aMaximumBelowTheBase(maximum: Int, size: Int, found: Int) {
    var path = ConfiguredPath(maximum: maximum, size: size)
    path.run(seconds: 30)
    #expect(path.mtu.current <= found && path.mtu.current > found - PathMTU.precision - 1)
  }

  /// Nothing is larger than an IP packet can be.
  @Test func aMaximumBeyondIP() {
    #expect(PathMTU(maximum: 70_000).maximum == 65_535)
  }
}
