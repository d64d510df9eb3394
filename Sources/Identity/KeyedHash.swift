public import PacketIO

/// Hashes under a key that are the same whatever the suite.
public enum KeyedHash {
  /// HMAC-SHA-256 (RFC 2104): 32 bytes.
  public static func hmacSHA256(_ bytes: [UInt8], key: KeyMaterial) -> [UInt8] {
    OpenSSLHash.hmac("SHA256", bytes, key: key, count: 32)
  }

  /// KMAC128 (SP 800-185 §4).
  /// - Parameters:
  ///   - key: 4 to 512 bytes.
  ///   - customization: 512 bytes at most.
  ///   - count: bytes, 1 to 8160.
  package static func kmac128(
    _ bytes: [UInt8], key: KeyMaterial, customization: [UInt8] = [], count: Int
  ) -> [UInt8] {
    OpenSSLHash.kmac128(bytes, key: key, customization: customization, count: count)
  }

  /// cSHAKE128 (SP 800-185 §3). Nothing here but the test of the Keccak code needs its names.
  package static func cSHAKE128(
    _ bytes: [UInt8], functionName: [UInt8] = [], customization: [UInt8] = [], count: Int
  ) -> [UInt8] {
    guard !functionName.isEmpty || !customization.isEmpty else { return OpenSSLHash.shake128(bytes, count: count) }
    func encoded(_ string: [UInt8]) -> [UInt8] { leftEncoded(string.count * 8) + string }
    let rate = 168
    var padded = leftEncoded(rate) + encoded(functionName) + encoded(customization)
    padded += [UInt8](repeating: 0, count: (rate - padded.count % rate) % rate)
    return OpenSSLHash.cSHAKE128(padded: padded + bytes, count: count)
  }

  /// How many bytes a number needs, and those (SP 800-185 §2.3.1).
  private static func leftEncoded(_ number: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = number
    repeat {
      bytes.insert(UInt8(truncatingIfNeeded: rest), at: 0)
      rest >>= 8
    } while rest > 0
    return [UInt8(truncatingIfNeeded: bytes.count)] + bytes
  }
}

/// Same bytes, in a time that depends on their number only.
public func isEqualInConstantTime(_ a: [UInt8], _ b: [UInt8]) -> Bool {
  a.count == b.count && OpenSSLHash.isEqual(a, b)
}
