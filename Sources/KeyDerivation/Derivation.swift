public import Identity
public import PacketIO

extension KeyedHash {
  /// HKDF with SHA-256 (RFC 5869).
  /// - Parameters:
  ///   - secret: the input keying material, not empty.
  ///   - salt: may be empty, which stands for 32 zero bytes.
  ///   - info: 1024 bytes at most.
  ///   - count: bytes to derive, 1 to 8160.
  public static func hkdfSHA256(secret: KeyMaterial, salt: [UInt8], info: [UInt8], count: Int) -> KeyMaterial {
    OpenSSLDerivation.hkdf("SHA256", secret: secret, salt: salt, info: info, count: count)
  }
}

extension HostIdentitySuite {
  /// Keying material from a shared secret: HKDF (RFC 7401 §6.5), or for `edDSA` the one-step derivation with KMAC128
  /// (SP 800-56C rev. 2 §4): KMAC128(salt, 00000001 ‖ secret ‖ info, count, "KDF").
  /// - Parameters:
  ///   - secret: not empty.
  ///   - salt: #I ‖ #J; 512 bytes at most, and empty or four at least.
  ///   - info: 1024 bytes at most.
  ///   - count: bytes to derive, 1 to 8160.
  public func derive(secret: KeyMaterial, salt: [UInt8], info: [UInt8], count: Int) -> KeyMaterial {
    switch self {
    case .rsa: KeyedHash.hkdfSHA256(secret: secret, salt: salt, info: info, count: count)
    case .ecdsa: OpenSSLDerivation.hkdf("SHA384", secret: secret, salt: salt, info: info, count: count)
    case .edDSA: OpenSSLDerivation.oneStepKMAC128(secret: secret, salt: salt, info: info, count: count)
    }
  }
}

extension HostIdentity {
  /// The identity of one side where two share a secret. Both sides can make both, so each knows the other's tag; and
  /// who knows the secret can pose as either.
  ///
  ///     scalar   = 1 + (HKDF-SHA-256(secret, no salt, "culvert psk identity v1" ‖ field(name), 48) mod (n - 1))
  ///     field(x) = the length of x in bytes, as one byte, then x in UTF-8
  /// - Parameters:
  ///   - secret: 32 bytes or more, random.
  ///   - name: the side's, 1 to 255 bytes; of a longer one only those count.
  public convenience init(secret: KeyMaterial, name: String) {
    let name = name.utf8.prefix(255)
    let info = Array("culvert psk identity v1".utf8) + [UInt8(truncatingIfNeeded: name.count)] + name
    let number = KeyedHash.hkdfSHA256(secret: secret, salt: [], info: info, count: 48)
    self.init(p256Number: number)
  }
}
