import PacketIO
import Testing

@testable import Dataplane

struct HeldPacketsTests {
  private func packet(_ bytes: Int, at seconds: UInt64 = 1) -> HeldPackets.Packet {
    HeldPackets.Packet(
      superpacket: Superpacket(buffer: 0, offset: 0, length: bytes, segmentSize: bytes),
      bytes: [UInt8](repeating: UInt8(truncatingIfNeeded: bytes), count: bytes), arrived: (1, bytes),
      since: MonotonicTime(nanoseconds: seconds * 1_000_000_000))
  }

  @Test func theLastEightAreKept() {
    var held = HeldPackets()
    for size in 100..<108 { #expect(held.hold(packet(size), for: 3).isEmpty) }
    #expect(held.hold(packet(108), for: 3).map(\.bytes.count) == [100])
    #expect(held.hold(packet(9), for: 4).isEmpty)
    #expect(held.take(3).map(\.bytes.count) == Array(101...108))
    #expect(held.take(3).isEmpty)
    #expect(held.take(4).count == 1)
    let isEmpty = held.isEmpty
    #expect(isEmpty)
  }

  @Test func bytesAreBounded() {
    var held = HeldPackets()
    #expect(held.hold(packet(HeldPackets.mostBytes + 1), for: 0).count == 1)
    #expect(held.hold(packet(9000), for: 0).isEmpty)
    #expect(held.hold(packet(9000), for: 0).count == 1)
    // Of all peers together.
    var kept = 1
    for row in Int32(1)..<1000 where held.hold(packet(16_384), for: row).isEmpty { kept += 1 }
    #expect(kept == 256)
    for row in Int32(0)..<1000 { _ = held.take(row) }
    #expect(held.hold(packet(16_384), for: 7).isEmpty)
  }

  @Test func nobodyWaitsForEver() {
    var held = HeldPackets()
    _ = held.hold(packet(100, at: 1), for: 0)
    _ = held.hold(packet(101, at: 2), for: 0)
    #expect(held.expire(now: MonotonicTime(nanoseconds: 2_999_999_999)).isEmpty)
    #expect(held.expire(now: MonotonicTime(nanoseconds: 3_000_000_000)).map(\.bytes.count) == [100])
    #expect(held.take(0).map(\.bytes.count) == [101])
  }
}
