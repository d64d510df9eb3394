import Glibc
package import PacketIO

/// Which of this machine's addresses packets leave from.
package enum LocalAddress {
  /// The one that the kernel chooses towards `endpoint`; nil where there is no route. Nothing is sent.
  package static func toward(_ endpoint: Endpoint) -> IPAddress? {
    let isV4 = endpoint.address.isV4
    let descriptor = socket(isV4 ? AF_INET : AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    return isV4 ? v4(descriptor, endpoint) : v6(descriptor, endpoint)
  }

  private static func v4(_ descriptor: Int32, _ endpoint: Endpoint) -> IPAddress? {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = endpoint.port.bigEndian
    name.sin_addr.s_addr = endpoint.address.v4.bigEndian
    guard exchange(descriptor, &name) else { return nil }
    return IPAddress(v4: UInt32(bigEndian: name.sin_addr.s_addr))
  }

  private static func v6(_ descriptor: Int32, _ endpoint: Endpoint) -> IPAddress? {
    var name = sockaddr_in6()
    name.sin6_family = sa_family_t(AF_INET6)
    name.sin6_port = endpoint.port.bigEndian
    let words = (endpoint.address.high.bigEndian, endpoint.address.low.bigEndian)
    unsafe withUnsafeMutableBytes(of: &name.sin6_addr) { unsafe $0.storeBytes(of: words, as: (UInt64, UInt64).self) }
    guard exchange(descriptor, &name) else { return nil }
    return unsafe withUnsafeBytes(of: &name.sin6_addr) { bytes in
      unsafe IPAddress(
        v6High: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
        low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
  }

  /// Connects to the name and puts the socket's own in its place.
  private static func exchange<Name>(_ descriptor: Int32, _ name: inout Name) -> Bool {
    var length = socklen_t(MemoryLayout<Name>.size)
    return unsafe withUnsafeMutablePointer(to: &name) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        unsafe connect(descriptor, address, length) == 0 && getsockname(descriptor, address, &length) == 0
      }
    }
  }
}
