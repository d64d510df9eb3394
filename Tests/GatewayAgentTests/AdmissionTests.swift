import Identity
import PacketIO
import Testing

@testable import KeyAgreement

/// What a flood in somebody's name takes from others.
struct AdmissionTests {
  private let own = HostIdentity(p256Scalar: [UInt8](repeating: 3, count: 32), deterministic: true).tag
  private let partners = [5, 7, 9].map {
    HostIdentity(p256Scalar: [UInt8](repeating: $0, count: 32), deterministic: true).tag
  }
  private let pool = BufferPool(count: 1)

  private func message(_ kind: HIPPacketKind, from sender: HostIdentityTag) throws -> PacketBytes {
    let bytes = HIPBuilder(kind, from: sender, to: own).finish()
    let place = pool.bytes(0).slice(0, bytes.count)
    place.copy(bytes, to: 0)
    return place
  }

  @Test func aFloodInOnesNameLeavesOthersTheirs() throws {
    let admission = Admission()
    for partner in partners.prefix(2) { admission.insert(Admission.Pair(local: own, remote: partner)) }
    let now = MonotonicTime(nanoseconds: 1_000_000_000)
    var taken = 0
    for _ in 0..<10_000 where admission.admits(try message(.i1, from: partners[0]), now: now) { taken += 1 }
    #expect(taken == 40)
    // Its own answers go on, and whatever the other says.
    #expect(admission.admits(try message(.r2, from: partners[0]), now: now))
    #expect(admission.admits(try message(.i1, from: partners[1]), now: now))
    let later = now.adding(nanoseconds: 1_000_000_000)
    #expect(admission.admits(try message(.i1, from: partners[0]), now: later))
  }

  @Test func ofStrangersAFewAreLookedAt() throws {
    let admission = Admission()
    let now = MonotonicTime(nanoseconds: 1_000_000_000)
    var taken = 0
    for _ in 0..<1000 where admission.admits(try message(.i1, from: partners[2]), now: now) { taken += 1 }
    #expect(taken == 5)
  }

  /// A full table of partners makes a stranger's packet no dearer, nor one of a partner that is refused.
  @Test func amongManyAPacketCostsWhatItCostsAmongFew() throws {
    let (few, many) = (Admission(), Admission())
    let last = Admission.Pair(local: own, remote: partners[0])
    for number in 0..<1023 {
      let bytes = own.bytes.dropLast(2) + [UInt8(number >> 8), UInt8(number & 255)]
      many.insert(Admission.Pair(local: own, remote: try #require(HostIdentityTag(bytes))))
    }
    for admission in [few, many] { admission.insert(last) }
    let now = MonotonicTime(nanoseconds: 1_000_000_000)
    for sender in [partners[2], partners[0]] {
      let packet = try message(.i1, from: sender)
      var costs = [Duration.seconds(60), .seconds(60)]
      // The shortest of several turns is what others on this machine have not lengthened.
      for _ in 0..<20 {
        for (place, admission) in [few, many].enumerated() {
          let cost = ContinuousClock().measure {
            for _ in 0..<500 { _ = admission.admits(packet, now: now) }
          }
          costs[place] = min(costs[place], cost)
        }
      }
      print("FIGURE: a packet that is refused takes \(costs[0] / 500) with one partner, \(costs[1] / 500) with 1024")
      #expect(costs[1] < costs[0] * 12)
    }
  }

  /// Who has sent too much is named, with how much.
  @Test func isReported() throws {
    let admission = Admission()
    let pairs = partners.map { Admission.Pair(local: own, remote: $0) }
    for pair in pairs { admission.insert(pair) }
    let now = MonotonicTime(nanoseconds: 1_000_000_000)
    for _ in 0..<50 { _ = admission.admits(try message(.i1, from: partners[1]), now: now) }
    for _ in 0..<3 { _ = admission.admits(try message(.r1, from: partners[0]), now: now) }
    let stranger = HostIdentity(p256Scalar: [UInt8](repeating: 11, count: 32), deterministic: true).tag
    for _ in 0..<7 { _ = admission.admits(try message(.i1, from: stranger), now: now) }
    let share = admission.share([pairs[0]: "beta", pairs[1]: "gamma", pairs[2]: "delta"], now: now)
    #expect(share.resource == .handshakes && share.capacity == 3 * 140 + 5 && share.used == 48 && share.refused == 12)
    #expect(share.holders.map(\.holder) == ["gamma", "strangers", "beta"])
    #expect(share.holders.map(\.held) == [40, 5, 3] && share.holders.map(\.refused) == [10, 2, 0])
    let later = admission.share([:], now: now.adding(nanoseconds: 60_000_000_000))
    #expect(later.used == 0 && later.refused == 12)
    #expect(later.holders.first?.holder == "\(partners[1])")
  }
}
