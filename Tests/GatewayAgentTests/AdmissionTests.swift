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
}
