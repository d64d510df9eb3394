public import PacketIO

/// A set of algorithms that belong together, by its number in tags and in HIT_SUITE_LIST (RFC 7401 §5.2.10, RFC 9374).
///
/// In an exchange the suite of the responder's tag decides on hash, message codes and key derivation.
public enum HostIdentitySuite: UInt8, Sendable, CaseIterable {
  /// RSA with SHA-256, HMAC-SHA-256 and HKDF-SHA-256.
  case rsa = 1
  /// ECDSA on P-256 or P-384 with SHA-384, HMAC-SHA-384 and HKDF-SHA-384.
  case ecdsa = 2
  /// Ed25519 with SHAKE128, KMAC128 and the one-step derivation of SP 800-56C. RFC 9374 leaves the derivation open, so
  /// that part is Culvert's choice.
  case edDSA = 5

  /// Bytes of RHASH, and so of a puzzle's #I and #J: 32 or 48.
  public var hashLength: Int { self == .ecdsa ? 48 : 32 }

  /// Bytes of HIP_MAC and HIP_MAC_2, and of the keys for them: 32 or 48.
  public var macLength: Int { hashLength }

  /// RHASH (RFC 7401 §3.2): `hashLength` bytes.
  public func hash(_ bytes: [UInt8]) -> [UInt8] {
    switch self {
    case .rsa: OpenSSLHash.sha256(bytes)
    case .ecdsa: OpenSSLHash.sha384(bytes)
    case .edDSA: OpenSSLHash.shake128(bytes, count: hashLength)
    }
  }

  /// The code of HIP_MAC (RFC 7401 §6.4, RFC 9374 §3.3): `macLength` bytes.
  /// - Parameter key: 4 to 512 bytes.
  public func mac(_ bytes: [UInt8], key: KeyMaterial) -> [UInt8] {
    switch self {
    case .rsa: OpenSSLHash.hmac("SHA256", bytes, key: key, count: macLength)
    case .ecdsa: OpenSSLHash.hmac("SHA384", bytes, key: key, count: macLength)
    case .edDSA: KeyedHash.kmac128(bytes, key: key, count: macLength)
    }
  }
}
