import COpenSSL
import PacketIO

/// Hashes and derivations as the library does them. All its arguments are in range where it is called, so that only a
/// library without an algorithm, or without memory, can fail: nothing secret may go on then.
enum OpenSSLHash {
  /// An algorithm, fetched once a process: to fetch it takes longer than to hash a packet.
  @safe private final class Algorithm: Sendable {
    // Never changed once it is fetched, and never freed.
    nonisolated(unsafe) let pointer: OpaquePointer?

    init(_ name: String) { unsafe pointer = EVP_MD_fetch(nil, name, nil) }
  }

  private static let sha256 = Algorithm("SHA256")
  private static let sha384 = Algorithm("SHA384")
  private static let shake128 = Algorithm("SHAKE128")
  private static let keccakKMAC128 = Algorithm("KECCAK-KMAC-128")

  private static func digest(_ algorithm: Algorithm, _ bytes: [UInt8], count: Int, extendable: Bool) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: count)
    let done = unsafe culvert_digest(
      algorithm.pointer, extendable ? 1 : 0, bytes, bytes.count, &output, output.count)
    precondition(done == 1, "OpenSSL failed to hash")
    return output
  }

  static func sha256(_ bytes: [UInt8]) -> [UInt8] { digest(sha256, bytes, count: 32, extendable: false) }

  static func sha384(_ bytes: [UInt8]) -> [UInt8] { digest(sha384, bytes, count: 48, extendable: false) }

  static func shake128(_ bytes: [UInt8], count: Int) -> [UInt8] {
    digest(shake128, bytes, count: count, extendable: true)
  }

  /// - Parameter padded: the names, encoded and padded (SP 800-185 §3.3), and then the bytes.
  static func cSHAKE128(padded: [UInt8], count: Int) -> [UInt8] {
    digest(keccakKMAC128, padded, count: count, extendable: true)
  }

  static func hmac(_ name: String, _ bytes: [UInt8], key: KeyMaterial, count: Int) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: count)
    let done = unsafe key.withBytes { key in
      unsafe culvert_hmac(name, key.baseAddress, key.count, bytes, bytes.count, &output, count)
    }
    precondition(done == 1, "OpenSSL failed to make an HMAC")
    return output
  }

  static func kmac128(_ bytes: [UInt8], key: KeyMaterial, customization: [UInt8], count: Int) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: count)
    let done = unsafe key.withBytes { key in
      unsafe culvert_kmac128(
        key.baseAddress, key.count, nil, 0, bytes, bytes.count, nil, 0, customization, customization.count, &output,
        count)
    }
    precondition(done == 1, "OpenSSL failed to make a KMAC")
    return output
  }

  /// Both have the same length.
  static func isEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool { unsafe CRYPTO_memcmp(a, b, min(a.count, b.count)) == 0 }
}
