import PacketIO
import Testing

@testable import KeyAgreement

/// Since when there was no traffic.
struct IdleWatchTests {
  @Test func sinceTheLastPacket() {
    var watch = IdleWatch()
    func note(_ packets: UInt64, _ seconds: UInt64) -> Duration {
      watch.note("beta", packets: packets, now: MonotonicTime(nanoseconds: seconds * 1_000_000_000))
    }
    // The last: the peer was there anew.
    let idle = [(5, 100), (5, 130), (6, 131), (6, 140), (0, 141)].map { note($0, $1) }
    #expect(idle == [0, 30, 0, 9, 0].map { .seconds($0) })
    let other = watch.note("gamma", packets: 6, now: MonotonicTime(nanoseconds: 150_000_000_000))
    watch.forget("beta")
    let again = note(0, 200)
    #expect(other == .zero && again == .zero)
  }

  @Test func isLookedAtOftenEnough() {
    for (idle, seconds) in [(10.0, 1.0), (60, 6), (86_400, 60), (2, 1)] {
      #expect(IdleWatch.interval(.seconds(idle)) == .seconds(seconds))
    }
  }
}
