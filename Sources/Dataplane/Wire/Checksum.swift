import CVector
package import PacketIO

/// The Internet checksum (RFC 1071). Sums are kept wide and in memory order, and folded once at the end.
package enum Checksum {
  /// Bits of the registers that long data are summed in, at most: what the processor has, but for tests.
  package enum Width { case bits128, bits256, bits512 }

  /// Adds `bytes` to a running sum. All pieces but the last must have an even length.
  @inline(__always)
  package static func sum(_ bytes: PacketBytes, _ initial: UInt64 = 0, widest: Width = .bits512) -> UInt64 {
    var sum = initial
    let count = bytes.count
    let base = unsafe UnsafeRawPointer(bytes.pointer)
    var offset = 0
    if count >= 256, widest == .bits512, culvert_has_wider_sum() != 0 {
      offset = count & ~1
      sum &+= unsafe culvert_wider_sum(base, offset)
    } else if count >= 256, widest != .bits128, culvert_has_wide_sum() != 0 {
      offset = count & ~31
      sum &+= unsafe culvert_wide_sum(base, offset)
    } else if count >= 64 {
      // The sum of 64-bit words, which overflows, and that of their upper halves, which for a packet cannot, tell the
      // sum of the lower halves.
      var a = SIMD2<UInt64>(), b = a, c = a, d = a
      while offset &+ 32 <= count {
        let x = unsafe base.loadUnaligned(fromByteOffset: offset, as: SIMD2<UInt64>.self)
        let y = unsafe base.loadUnaligned(fromByteOffset: offset &+ 16, as: SIMD2<UInt64>.self)
        a &+= x
        b &+= x &>> 32
        c &+= y
        d &+= y &>> 32
        offset &+= 32
      }
      a &+= c
      b &+= d
      a = a &- (b &<< 32) &+ b
      sum &+= a[0] &+ a[1]
    }
    while offset &+ 8 <= count {
      let word = unsafe base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      sum &+= (word & 0xFFFF_FFFF) &+ (word >> 32)
      offset &+= 8
    }
    if offset &+ 4 <= count {
      sum &+= unsafe UInt64(base.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
      offset &+= 4
    }
    if offset &+ 2 <= count {
      sum &+= unsafe UInt64(base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset &+= 2
    }
    if offset < count {
      sum &+= unsafe UInt64(UInt16(base.load(fromByteOffset: offset, as: UInt8.self)).littleEndian)
    }
    return sum
  }

  /// A running sum folded to 16 bits and brought into host order; not complemented.
  @inline(__always)
  package static func fold(_ sum: UInt64) -> UInt16 {
    // What is a multiple of 65535 folds to that, and only nothing folds to nothing.
    let rest = UInt16(truncatingIfNeeded: sum % 0xFFFF)
    return (rest == 0 && sum != 0 ? 0xFFFF : rest).bigEndian
  }

  /// Whether data that include their checksum have this sum.
  @inline(__always)
  package static func isRight(_ sum: UInt64) -> Bool { sum % 0xFFFF == 0 && sum != 0 }

  /// What goes into a checksum field over data of this sum.
  @inline(__always)
  package static func finish(_ sum: UInt64) -> UInt16 { ~fold(sum) }

  /// The pseudo-header's sum (RFC 9293 §3.1, RFC 8200 §8.1): addresses straight from the IP header.
  @inline(__always)
  package static func pseudoHeader(_ packet: PacketBytes, isV4: Bool, protocolNumber: UInt8, length: Int) -> UInt64 {
    let addresses = isV4 ? packet.slice(12, 8) : packet.slice(8, 32)
    let rest = UInt64(UInt32(truncatingIfNeeded: length).bigEndian) &+ UInt64(UInt32(protocolNumber).bigEndian)
    return sum(addresses, rest)
  }

  /// Recomputes the header checksum of an IPv4 header of `length` bytes.
  @inline(__always)
  package static func setIPv4Header(_ packet: PacketBytes, length: Int) {
    packet.store16(0, 10)
    packet.store16(finish(sum(packet.slice(0, length))), 10)
  }

  /// Whether the TCP or UDP checksum of a whole packet, not a fragment, is right.
  @inline(__always)
  package static func isTransportRight(_ packet: PacketBytes, _ parsed: InnerPacket) -> Bool {
    let transport = packet.dropFirst(parsed.transportOffset)
    let pseudo = pseudoHeader(packet, isV4: parsed.isV4, protocolNumber: parsed.transport, length: transport.count)
    return isRight(sum(transport, pseudo))
  }

  /// The checksum in a header after one of the 16-bit words it covers changed (RFC 1624 eqn. 3).
  @inline(__always)
  package static func updated(_ checksum: UInt16, from old: UInt16, to new: UInt16) -> UInt16 {
    var sum = UInt32(~checksum) &+ UInt32(~old) &+ UInt32(new)
    sum = (sum & 0xFFFF) &+ (sum >> 16)
    sum = (sum & 0xFFFF) &+ (sum >> 16)
    return ~UInt16(truncatingIfNeeded: sum)
  }
}
