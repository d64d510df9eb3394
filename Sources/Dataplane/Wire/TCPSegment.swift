import PacketIO

/// What connection tracking reads of a TCP packet, or of a superpacket of them.
package struct TCPSegment: BitwiseCopyable, Sendable {
  package static let fin: UInt8 = 0x01
  package static let syn: UInt8 = 0x02
  package static let rst: UInt8 = 0x04
  package static let push: UInt8 = 0x08
  package static let ack: UInt8 = 0x10
  package static let urgent: UInt8 = 0x20
  /// PSH, ECE and CWR say nothing about a connection's state.
  private static let meaningful: UInt8 = 0x37

  package var sequence: UInt32
  package var acknowledgement: UInt32
  package var flags: UInt8
  package var window: UInt16
  /// Behind the last sequence number it takes: payload of all segments, SYN and FIN.
  package var end: UInt32

  package init(sequence: UInt32, acknowledgement: UInt32, flags: UInt8, window: UInt16, payload: Int) {
    self.sequence = sequence
    self.acknowledgement = acknowledgement
    self.flags = flags & TCPSegment.meaningful
    self.window = window
    end =
      sequence &+ UInt32(truncatingIfNeeded: payload) &+ UInt32(flags & TCPSegment.fin)
      &+ UInt32((flags & TCPSegment.syn) &>> 1)
  }

  /// Reads the header at `offset`; nil when it is not whole. `length` is that of the whole IP packet.
  @inline(__always)
  init?(_ bytes: PacketBytes, at offset: Int, length: Int) {
    guard bytes.count &- offset >= 20 else { return nil }
    let headerLength = Int(bytes[offset &+ 12] &>> 4) &* 4
    let payload = length &- offset &- headerLength
    guard headerLength >= 20, bytes.count &- offset >= headerLength, payload >= 0 else { return nil }
    self.init(
      sequence: bytes.load32(offset &+ 4), acknowledgement: bytes.load32(offset &+ 8), flags: bytes[offset &+ 13],
      window: bytes.load16(offset &+ 14), payload: payload)
  }

  @inline(__always) func has(_ flag: UInt8) -> Bool { flags & flag != 0 }

  /// ACK and nothing else, as most packets are.
  @inline(__always)
  var isPlain: Bool { flags & ~TCPSegment.urgent == TCPSegment.ack }

  /// Whether any host sends such a combination: a SYN, SYN-ACK, RST, or anything with ACK, FIN only with ACK; never
  /// SYN with RST or FIN, nor RST with FIN.
  @inline(__always)
  var isSane: Bool {
    switch flags & ~TCPSegment.urgent {
    case TCPSegment.syn, TCPSegment.syn | TCPSegment.ack, TCPSegment.rst, TCPSegment.rst | TCPSegment.ack,
      TCPSegment.ack, TCPSegment.ack | TCPSegment.fin:
      true
    default: false
    }
  }

  /// The window scale that a SYN offers (RFC 7323 §2); nil when it offers none. The header is whole.
  static func windowScale(_ bytes: PacketBytes, at offset: Int) -> UInt8? {
    let end = offset + Int(bytes[offset + 12] >> 4) * 4
    var option = offset + 20
    while option < end {
      switch bytes[option] {
      case 0: return nil
      case 1: option += 1
      default:
        guard option + 1 < end else { return nil }
        let length = Int(bytes[option + 1])
        guard length >= 2, option + length <= end else { return nil }
        // Greater ones count as 14 (RFC 7323 §2.3).
        if bytes[option] == 3, length == 3 { return min(bytes[option + 2], 14) }
        option += length
      }
    }
    return nil
  }
}
