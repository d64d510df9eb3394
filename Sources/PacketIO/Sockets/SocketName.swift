package import Glibc

/// A kernel socket address: `sockaddr_in` or `sockaddr_in6`, whose fields fall on the same places.
@safe package struct SocketName: BitwiseCopyable {
  private var family: UInt16
  private var port: UInt16
  /// The IPv4 address, or the IPv6 flow label.
  private var word: UInt32 = 0
  /// The IPv6 address.
  private var high: UInt64 = 0
  private var low: UInt64 = 0
  private var scope: UInt32 = 0
  package let length: socklen_t

  package init(_ endpoint: Endpoint) {
    port = endpoint.port.bigEndian
    if endpoint.address.isV4 {
      family = UInt16(AF_INET)
      word = endpoint.address.v4.bigEndian
      length = socklen_t(MemoryLayout<sockaddr_in>.size)
    } else {
      family = UInt16(AF_INET6)
      high = endpoint.address.high.bigEndian
      low = endpoint.address.low.bigEndian
      length = socklen_t(MemoryLayout<sockaddr_in6>.size)
    }
  }

  @unsafe package func withPointer<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    unsafe withUnsafeBytes(of: self) {
      unsafe body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), length)
    }
  }

  /// False with `errno` set where the kernel refuses.
  package func connect(_ descriptor: Int32) -> Bool {
    unsafe withPointer { unsafe Glibc.connect(descriptor, $0, $1) } == 0
  }

  package var isV4: Bool { family == UInt16(AF_INET) }

  /// What it names.
  package var endpoint: Endpoint {
    isV4
      ? Endpoint(address: IPAddress(v4: UInt32(bigEndian: word)), port: UInt16(bigEndian: port))
      : Endpoint(
        address: IPAddress(v6High: UInt64(bigEndian: high), low: UInt64(bigEndian: low)), port: UInt16(bigEndian: port))
  }

  /// Same address and port; of IPv4 only those bytes that the kernel writes are compared.
  @inline(__always) package func equals(_ other: SocketName) -> Bool {
    guard family == other.family, port == other.port else { return false }
    return isV4 ? word == other.word : high == other.high && low == other.low
  }

  /// The same, with the address where the kernel wrote it.
  @inline(__always) package func equals(_ bytes: PacketBytes) -> Bool {
    guard bytes.count >= Int(length), bytes.loadNative(0, as: UInt16.self) == family,
      bytes.loadNative(2, as: UInt16.self) == port
    else { return false }
    return isV4
      ? bytes.loadNative(4, as: UInt32.self) == word
      : bytes.loadNative(8, as: UInt64.self) == high && bytes.loadNative(16, as: UInt64.self) == low
  }

  /// Reads the address the kernel wrote; nil for another family.
  package static func endpoint(_ bytes: PacketBytes) -> Endpoint? {
    guard bytes.count >= 16 else { return nil }
    let family = Int32(bytes.loadNative(0, as: UInt16.self))
    if family == AF_INET { return Endpoint(address: IPAddress(v4: bytes.load32(4)), port: bytes.load16(2)) }
    guard family == AF_INET6, bytes.count >= 28 else { return nil }
    return Endpoint(address: IPAddress(v6High: bytes.load64(8), low: bytes.load64(16)), port: bytes.load16(2))
  }
}
