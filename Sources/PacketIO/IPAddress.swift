import Glibc

/// An IPv4 or IPv6 address, held as a 128-bit number; an IPv4 address occupies the top 32 bits, so that prefix
/// arithmetic is the same for both.
@frozen public struct IPAddress: Hashable, Sendable, BitwiseCopyable {
  /// The version of IP, by its number in the header.
  public enum Family: UInt8, Sendable, BitwiseCopyable { case v4 = 4, v6 = 6 }

  public var high: UInt64
  public var low: UInt64
  public var family: Family

  @inlinable public init(v4: UInt32) {
    high = UInt64(v4) << 32
    low = 0
    family = .v4
  }

  @inlinable public init(v6High: UInt64, low: UInt64) {
    high = v6High
    self.low = low
    family = .v6
  }

  /// The number of an IPv4 address, in host order.
  @inlinable public var v4: UInt32 { UInt32(truncatingIfNeeded: high >> 32) }
  @inlinable public var isV4: Bool { family == .v4 }
  @inlinable public var bitWidth: Int { isV4 ? 32 : 128 }

  /// Reads the usual text form ("192.0.2.1", "2001:db8::1"); nil for anything else.
  public init?(_ text: String) {
    // To C the text would end there.
    guard !text.utf8.contains(0) else { return nil }
    var four = in_addr()
    var six = in6_addr()
    if unsafe inet_pton(AF_INET, text, &four) == 1 {
      self.init(v4: UInt32(bigEndian: four.s_addr))
    } else if unsafe inet_pton(AF_INET6, text, &six) == 1 {
      self = unsafe withUnsafeBytes(of: &six) { bytes in
        unsafe IPAddress(
          v6High: UInt64(bigEndian: bytes.load(as: UInt64.self)),
          low: UInt64(bigEndian: bytes.load(fromByteOffset: 8, as: UInt64.self)))
      }
    } else {
      return nil
    }
  }
}

extension IPAddress: CustomStringConvertible {
  public var description: String {
    var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
    var bytes = (high.bigEndian, low.bigEndian)
    unsafe withUnsafeBytes(of: &bytes) { raw in
      _ = unsafe text.withUnsafeMutableBufferPointer { out in
        unsafe inet_ntop(isV4 ? AF_INET : AF_INET6, raw.baseAddress, out.baseAddress, socklen_t(INET6_ADDRSTRLEN))
      }
    }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Numeric order; IPv4 before IPv6.
extension IPAddress: Comparable {
  @inlinable public static func < (a: IPAddress, b: IPAddress) -> Bool {
    (a.family.rawValue, a.high, a.low) < (b.family.rawValue, b.high, b.low)
  }
}
