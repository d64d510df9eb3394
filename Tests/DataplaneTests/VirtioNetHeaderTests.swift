import PacketIO
import Testing

@testable import Dataplane

/// Repeatable numbers for tests (SplitMix64).
private struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

struct VirtioNetHeaderTests {
  private let pool = BufferPool(count: 1)
  private var bytes: PacketBytes { pool.bytes(0) }

  @Test func layoutIsTheKernels() {
    // struct virtio_net_hdr of linux/virtio_net.h, a TCP superpacket on a little-endian machine.
    let expected: [UInt8] = [1, 4, 60, 0, 0x78, 5, 40, 0, 16, 0]
    let offload = Offload(segmentation: .tcp6, needsChecksum: true, checksumStart: 40, checksumOffset: 16)
    VirtioNetHeader.write(offload, gsoSize: 1400, headerLength: 60, to: bytes)
    if 1.littleEndian == 1 { #expect(bytes.slice(0, VirtioNetHeader.length).array() == expected) }
  }

  @Test func everyOffloadSurvivesWritingAndReading() {
    var random = Seeded(state: 1)
    for _ in 0..<20_000 {
      let kinds: [Offload.Segmentation] = [.none, .tcp4, .tcp6, .udp]
      let needsChecksum = Bool.random(using: &random)
      let offload = Offload(
        segmentation: kinds.randomElement(using: &random)!, needsChecksum: needsChecksum,
        checksumStart: needsChecksum ? .random(in: 0 ... .max, using: &random) : 0,
        checksumOffset: needsChecksum ? .random(in: 0 ... .max, using: &random) : 0)
      let size = offload.segmentation == .none ? 0 : Int.random(in: 1...0xFFFF, using: &random)
      let headerLength = Int.random(in: 0...0xFFFF, using: &random)
      for position in 0..<VirtioNetHeader.length { bytes[position] = UInt8.random(in: 0 ... .max, using: &random) }
      VirtioNetHeader.write(offload, gsoSize: size, headerLength: headerLength, to: bytes)
      let parsed = VirtioNetHeader.parse(bytes)
      #expect(parsed?.offload == offload && parsed?.gsoSize == size && parsed?.headerLength == headerLength)
    }
  }

  /// Against a slow reading of the same bytes.
  @Test func anyBytesParseOrAreRefused() {
    var random = Seeded(state: 2)
    var accepted = 0
    for _ in 0..<50_000 {
      let count = Int.random(in: 0...14, using: &random)
      let raw = (0..<count).map { _ in
        UInt8.random(in: 0 ... .max, using: &random) & [0xFF, 0x85, 0x01].randomElement(using: &random)!
      }
      bytes.copy(raw, to: 0)
      let parsed = VirtioNetHeader.parse(bytes.slice(0, count))
      let type = count > 1 ? raw[1] & 0x7F : 0
      let size = count >= 6 ? Int(raw[4]) | Int(raw[5]) << 8 : 0
      let isGood = count >= 10 && (type == 0 || [1, 4, 5].contains(type) && size > 0)
      #expect((parsed != nil) == isGood, "\(raw)")
      guard let parsed else { continue }
      accepted += 1
      #expect(parsed.offload.segmentation.rawValue == type)
      #expect(parsed.gsoSize == (type == 0 ? 0 : size))
      #expect(parsed.offload.needsChecksum == (raw[0] & 1 == 1))
      let start = UInt16(raw[6]) | UInt16(raw[7]) << 8
      #expect(parsed.offload.checksumStart == (raw[0] & 1 == 1 ? start : 0))
    }
    #expect(accepted > 1000)
  }

  @Test func sizesOutOfRangeAreClamped() {
    VirtioNetHeader.write(Offload(segmentation: .udp), gsoSize: 70_000, headerLength: -1, to: bytes)
    let parsed = VirtioNetHeader.parse(bytes)
    #expect(parsed?.gsoSize == 0xFFFF && parsed?.headerLength == 0)
  }

  @Test func netlinkRepliesOfAnyBytesAreRead() {
    var random = Seeded(state: 3)
    for _ in 0..<20_000 {
      var raw = (0..<Int.random(in: 0...96, using: &random)).map { _ in UInt8.random(in: 0 ... .max, using: &random) }
      // Often plausible lengths, so that more than the first check is reached.
      if raw.count >= 22 {
        raw.replaceSubrange(0..<4, with: [UInt8(Int.random(in: 0...raw.count, using: &random)), 0, 0, 0])
        raw.replaceSubrange(16..<18, with: [UInt8(Int.random(in: 0...24, using: &random)), 0])
      }
      let replies = NetlinkReply.split([0, 0, 0] + raw[...])
      for reply in replies { for header in [0, 8, 12, 16] { _ = reply.attributes(after: header) } }
      for reply in NetlinkReply.split(raw[...]) {
        #expect(reply.body.count <= raw.count - 16)
        let attributes = reply.attributes(after: 0)
        #expect(attributes.values.allSatisfy { $0.count <= reply.body.count - 4 })
      }
    }
  }
}
