import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// How busy a relay takes itself to be, and what that does to handshakes.
@Suite struct RelayLoadTests {
  private static func time(_ seconds: Double) -> MonotonicTime {
    MonotonicTime(nanoseconds: 1 << 50).adding(seconds: seconds)
  }

  /// The greatest of three, each over two seconds, and none above one.
  @Test func theGreatestShareCounts() {
    var load = RelayLoad(bitRate: 8_000_000)
    var (busy, bytes): (UInt64, UInt64) = (0, 0)
    func run(from: Double, seconds: Double, busy share: Double, bytesPerSecond: Double, pairs: Double) {
      for step in 0..<Int(seconds * 20) {
        load.note(
          RelayLoad.Reading(at: Self.time(from + Double(step) / 20), busy: busy, bytes: bytes), pairs: pairs)
        busy += UInt64(share * 50_000_000)
        bytes += UInt64(bytesPerSecond / 20)
      }
    }
    run(from: 0, seconds: 4, busy: 0.3, bytesPerSecond: 600_000, pairs: 0.1)
    #expect(abs(load.thread - 0.3) < 0.01 && abs(load.bandwidth - 0.6) < 0.01 && load.pairs == 0.1)
    #expect(load.share == load.bandwidth && load.byte == UInt8(load.bandwidth * 255))
    // After one second of two it is half way, after two it is there.
    run(from: 4, seconds: 1.05, busy: 0.9, bytesPerSecond: 0, pairs: 0.1)
    #expect(abs(load.thread - 0.6) < 0.05 && abs(load.bandwidth - 0.3) < 0.05)
    run(from: 5.05, seconds: 1.1, busy: 0.9, bytesPerSecond: 0, pairs: 0.95)
    #expect(abs(load.thread - 0.9) < 0.01 && load.bandwidth < 0.01 && load.share == 0.95)
    run(from: 6.15, seconds: 3, busy: 5, bytesPerSecond: 1e9, pairs: 3)
    #expect(load.thread == 1 && load.bandwidth == 1 && load.pairs == 1 && load.byte == 255)
    // Without a limit there is no share of it.
    var unlimited = RelayLoad(bitRate: 0)
    for step in 0..<100 {
      unlimited.note(
        RelayLoad.Reading(at: Self.time(Double(step)), busy: 0, bytes: UInt64(step) << 30), pairs: 0)
    }
    #expect(unlimited.share == 0)
  }

  /// Below one half at once; from there up to 200 ms, a tenth more or less; from 95 % a new pair is refused.
  @Test func howLongItWaits() {
    var random = SeededNumbers(seed: 3)
    var load = RelayLoad(bitRate: 0)
    func waits(_ share: Double, isBound: Bool) -> [RelayLoad.Verdict] {
      load.note(RelayLoad.Reading(at: Self.time(0), busy: 0, bytes: 0), pairs: share)
      return (0..<200).map { _ in load.verdict(isBound: isBound, using: &random) }
    }
    for share in [0, 0.2, 0.49] { #expect(waits(share, isBound: false).allSatisfy { $0 == .forward }) }
    for (share, milliseconds) in [(0.5, 0.0), (0.6, 44.4), (0.725, 100), (0.9, 177.8), (0.949, 199.6)] {
      let times = waits(share, isBound: false).compactMap { verdict -> Double? in
        if case .wait(let nanoseconds) = verdict { Double(nanoseconds) / 1e6 } else { nil }
      }
      #expect(times.count == 200)
      let (least, most) = (times.min() ?? 0, times.max() ?? 0)
      #expect(
        least >= milliseconds * 0.899 - 0.1 && most <= milliseconds * 1.101 + 0.1, "\(share): \(least) to \(most)")
      #expect(milliseconds == 0 || most > 1.08 * milliseconds && least < 0.92 * milliseconds, "\(share)")
    }
    #expect(waits(0.95, isBound: false).allSatisfy { $0 == .refuse })
    // Bandwidth that is used up is no reason: it is shared anew.
    var narrow = RelayLoad(bitRate: 8)
    for second in 0...2 {
      narrow.note(
        RelayLoad.Reading(at: Self.time(Double(second)), busy: 0, bytes: UInt64(second) * 1000), pairs: 0)
    }
    guard narrow.bandwidth == 1, case .wait = narrow.verdict(isBound: false, using: &random) else {
      Issue.record("\(narrow)")
      return
    }
    let bound = waits(1, isBound: true)
    #expect(bound.allSatisfy { if case .wait(180_000_000...220_000_000) = $0 { true } else { false } })
  }

  private static func sites(_ count: Int, load: Double) -> RelaySites {
    let sites = RelaySites(count) { options, sites in
      options.policy.add(group: "all", sites.map(\.tag))
      options.policy.allow(groups: "all", "all")
      (options.gateways, options.pairs) = (count, 2048)
    }
    for number in 0..<count { sites.enrol(number) }
    sites.set(load: load)
    return sites
  }

  /// An idle relay passes it on at once, a busy one later and unchanged, a full one tells who it is.
  @Test func aBusyRelayLetsHandshakesWait() throws {
    let idle = Self.sites(2, load: 0.4)
    let packet = idle.packet(.i1, 0, 1)
    #expect(idle.observe(packet, from: idle.sites[0].endpoint) == .forward(try #require(idle.place(1))))
    let busy = Self.sites(2, load: 0.9)
    let late = busy.packet(.i1, 0, 1)
    #expect(busy.observe(late, from: busy.sites[0].endpoint) == .wait)
    #expect(busy.relay.statistics.forwardedHandshakes == 0 && busy.due().isEmpty)
    busy.wait(0.15)
    #expect(busy.due().isEmpty)
    busy.wait(0.05)
    let due = busy.due()
    #expect(due.map(\.place) == [try #require(busy.place(1))] && due.map(\.packet) == [[0, 0, 0, 0] + late])
    #expect(busy.relay.statistics.forwardedHandshakes == 1 && busy.due().isEmpty && busy.drops == 0)
    // What else is said does not wait.
    #expect(busy.observe(busy.packet(.r1, 1, 0), from: busy.sites[1].endpoint) == .forward(try #require(busy.place(0))))
    let full = Self.sites(2, load: 0.96)
    guard case .drop(.refusedBusy, let answer?) = full.observe(full.packet(.i1, 0, 1), from: full.sites[0].endpoint)
    else {
      Issue.record("not refused")
      return
    }
    let notice = try #require(HIPPacket(Array(answer.dropFirst(4))))
    #expect(notice.content(.notification).map { Array($0) } == [0, 0, 0, 44])
    #expect(notice.hasValidSignature(by: full.identity.publicIdentity))
    // Who is bound here already waits.
    full.set(load: 0)
    full.announce(0, 1, 0x1000)
    full.set(load: 1)
    #expect(full.observe(full.packet(.i1, 0, 1), from: full.sites[0].endpoint) == .wait)
  }

  /// One of each gateway of a pair waits, and 1024 in all: the oldest makes room. Each that goes is counted.
  @Test func fewWait() {
    let sites = Self.sites(48, load: 0.94)
    func ask(_ a: Int, _ b: Int) -> IdentityRelay.Outcome {
      sites.observe(sites.packet(.i1, a, b), from: sites.sites[a].endpoint)
    }
    #expect(ask(0, 1) == .wait)
    #expect(ask(0, 1) == .drop(.waitsAlready, answer: nil) && ask(1, 0) == .wait)
    #expect(ask(1, 0) == .drop(.waitsAlready, answer: nil))
    var pairs: [(Int, Int)] = []
    for a in 0..<48 { for b in 0..<a where (a, b) != (1, 0) { pairs.append((a, b)) } }
    for (a, b) in pairs.prefix(1022) { #expect(ask(a, b) == .wait) }
    #expect(sites.waiting == 1024 && sites.relay.statistics[.crowdedOut] == 0)
    let last = pairs[1022]
    #expect(ask(last.0, last.1) == .wait)
    #expect(sites.waiting == 1024 && sites.relay.statistics[.crowdedOut] == 1)
    // It was the oldest that went, so its pair may ask again.
    #expect(ask(0, 1) == .wait && sites.relay.statistics[.crowdedOut] == 2)
    sites.wait(0.3)
    #expect(sites.due().count == 1024 && sites.waiting == 0)
    #expect(sites.relay.statistics[.waitsAlready] == 2)
  }

  /// What has changed while it waited counts: a rule that went, a gateway that left.
  @Test func whatWaitedIsJudgedAgain() {
    let sites = Self.sites(4, load: 0.8)
    for (a, b) in [(0, 1), (2, 3)] { _ = sites.observe(sites.packet(.i1, a, b), from: sites.sites[a].endpoint) }
    sites.relay.places.expire(sites.place(3)!)
    var policy = RelayPolicy()
    policy.allow(sites.sites[2].tag, sites.sites[3].tag)
    _ = sites.relay.set(policy, sites.clock)
    sites.wait(0.3)
    #expect(sites.due().isEmpty)
    #expect(sites.relay.statistics[.notAllowed] == 1 && sites.relay.statistics[.receiverNotEnrolled] == 1)
  }

  /// Gateways are told, and so is who looks.
  @Test func loadIsTold() throws {
    let sites = Self.sites(2, load: 0.6)
    #expect(sites.enrol(0)?.load == 153)
    let report = sites.relay.snapshot(sites.clock).report
    #expect(report.load.share == 0.6 && report.load.pairs == 0.6 && report.load.thread == 0)
  }
}
