import PacketIO
import Testing

@testable import Dataplane

/// Headers and checksums, read by the packet path as the slow readers read them.
@Suite struct WireTests {
  private let pool = BufferPool(count: 1)

  /// The bytes somewhere in packet memory, with others around them.
  private func memory(_ bytes: [UInt8], at offset: Int = 64) -> PacketBytes {
    let whole = pool.bytes(0).slice(0, offset + bytes.count + 64)
    whole.copy([UInt8](repeating: 0xEE, count: whole.count), to: 0)
    whole.copy(bytes, to: offset)
    return whole.slice(offset, bytes.count)
  }

  /// Whatever registers the processor has for it.
  @Test(arguments: [Checksum.Width.bits128, .bits256, .bits512])
  func checksumsOfAllLengthsAndPlaces(widest: Checksum.Width) {
    var numbers = SeededNumbers(seed: 1)
    for count in Array(0...200) + Array(250...400) + [1399, 1400, 9001, 65535] {
      let bytes = numbers.bytes(count)
      let memory = memory(bytes, at: 64 + count % 9)
      let sum = Checksum.sum(memory, widest: widest)
      #expect(Checksum.fold(sum) == onesComplementSum(bytes), "\(count) bytes")
      #expect(Checksum.finish(sum) == ~onesComplementSum(bytes))
      #expect(Checksum.isRight(sum) == (onesComplementSum(bytes) == 0xFFFF))
      // In pieces, all of even length but the last.
      let cut = Int.random(in: 0...count, using: &numbers) & ~1
      let rest = Checksum.sum(memory.slice(0, cut), widest: widest)
      let inTwo = Checksum.sum(memory.dropFirst(cut), rest, widest: widest)
      #expect(Checksum.fold(inTwo) == onesComplementSum(bytes), "\(count) bytes, cut at \(cut)")
    }
  }

  @Test func carriesAreNotLost() {
    for count in [2, 3, 64, 65, 1000, 65535] {
      for byte in [0xFF, 0xFE, 0x80] as [UInt8] {
        let bytes = [UInt8](repeating: byte, count: count)
        for widest in [Checksum.Width.bits128, .bits256, .bits512] {
          #expect(Checksum.fold(Checksum.sum(memory(bytes), widest: widest)) == onesComplementSum(bytes))
        }
      }
    }
    for sum in [0, 1, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x1_0000_0000, .max - 1, .max] as [UInt64] {
      #expect(UInt64(Checksum.fold(sum).bigEndian) % 0xFFFF == sum % 0xFFFF)
    }
  }

  @Test func packetsAreReadAsTheSlowReaderReadsThem() {
    var traffic = Traffic(seed: 2, flows: 20)
    for _ in 0..<500 {
      let right = SlowPacket(traffic.next().packet.bytes)
      // Bytes behind the packet belong to somebody else.
      guard let packet = InnerPacket(memory(right.bytes + [1, 2, 3]).slice(0, right.bytes.count + 3)) else {
        Issue.record("\(right.bytes.prefix(60)) is refused")
        continue
      }
      let bytes = memory(right.bytes)
      #expect(packet.isV4 == right.isV4 && packet.length == right.bytes.count)
      #expect(packet.transport == right.transport && packet.transportOffset == right.transportOffset)
      #expect(packet.isFragment == right.isFragment && packet.isFirstFragment == (right.fragmentOffset == 0))
      #expect(packet.source(bytes) == right.source && packet.destination(bytes) == right.destination)
      #expect(InnerPacket(memory(Array(right.bytes.dropLast()))) == nil, "a byte is missing")
    }
  }

  @Test func ipv6HeaderChains() {
    func chain(_ headers: [(type: UInt8, rest: [UInt8])]) -> [UInt8] {
      var sketch = PacketSketch("fd00:1::1", "fd00:2::1", .udp(sourcePort: 1, destinationPort: 2))
      sketch.extensions = headers
      return sketch.bytes
    }
    let options: (type: UInt8, rest: [UInt8]) = (60, [0, 0, 0, 0, 0, 0, 0])
    #expect(InnerPacket(memory(chain([options])))?.transportOffset == 48)
    let seven = InnerPacket(memory(chain([(type: UInt8, rest: [UInt8])](repeating: options, count: 7))))
    #expect(seven?.transportOffset == 96 && seven?.transport == 17)
    #expect(InnerPacket(memory(chain([(type: UInt8, rest: [UInt8])](repeating: options, count: 8)))) == nil)
    // A header whose length reaches beyond the packet, by a byte and by far.
    for length in [2, 3, 255] as [UInt8] {
      var bytes = chain([options])
      bytes[41] = length
      #expect(InnerPacket(memory(bytes)) == nil)
    }
    // Cut within the chain: neither the whole header nor its first two bytes.
    for count in 41..<48 {
      var bytes = Array(chain([options])[..<count])
      bytes.replaceSubrange(4..<6, with: be16(UInt16(count - 40)))
      #expect(InnerPacket(memory(bytes)) == nil, "\(count) bytes")
    }
    // No next header, and protocols nobody knows: the packet is whole.
    for next in [59, 50, 51, 135, 253] as [UInt8] {
      let sketch = PacketSketch("fd00:1::1", "fd00:2::1", .other(next), payload: [1])
      let packet = InnerPacket(memory(sketch.bytes))
      #expect(packet?.transport == next && packet?.transportOffset == 40)
    }
    // A packet of one fragment (RFC 6946) keeps its fragment header.
    var atomic = PacketSketch("fd00:1::1", "fd00:2::1", .udp(sourcePort: 1, destinationPort: 2))
    atomic.fragment = (offset: 0, more: false)
    let packet = InnerPacket(memory(atomic.bytes))
    #expect(packet?.isFragment == true && packet?.isFirstFragment == true && packet?.transportOffset == 48)
  }

  @Test func whatIsNoPacketIsRefused() {
    var numbers = SeededNumbers(seed: 3)
    for count in 0..<20 {
      #expect(InnerPacket(memory([0x45] + [UInt8](repeating: 0, count: max(count - 1, 0)))) == nil)
    }
    for version in 0...15 as ClosedRange<UInt8> where version != 4 && version != 6 {
      var bytes = PacketSketch("10.0.0.1", "10.0.0.2", .other(1)).bytes
      bytes[0] = version << 4 | 5
      #expect(InnerPacket(memory(bytes)) == nil)
    }
    // Whatever the bytes are, what is accepted lies within them.
    for _ in 0..<5000 {
      var bytes = numbers.bytes(Int.random(in: 0...80, using: &numbers))
      if bytes.count > 6 {
        bytes[0] = [0x45, 0x46, 0x4F, 0x60].randomElement(using: &numbers)!
        bytes.replaceSubrange(2..<4, with: be16(UInt16.random(in: 0...100, using: &numbers)))
        bytes.replaceSubrange(4..<6, with: be16(UInt16.random(in: 0...60, using: &numbers)))
        bytes[6] = [0, 43, 44, 60, 17].randomElement(using: &numbers)!
      }
      guard let packet = InnerPacket(memory(bytes)) else { continue }
      #expect(packet.length <= bytes.count && packet.transportOffset <= packet.length)
    }
  }
}
