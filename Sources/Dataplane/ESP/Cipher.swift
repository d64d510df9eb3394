import PacketIO

/// The combined-mode ciphers of ESP (RFC 4106, RFC 7634, RFC 8750). All have a 16-byte ICV.
public enum Cipher: String, Sendable, CaseIterable, Codable {
  case aes128GCM = "aes-128-gcm"
  case aes256GCM = "aes-256-gcm"
  case chacha20Poly1305 = "chacha20-poly1305"

  /// Bytes of the key proper.
  public var keyLength: Int { self == .aes128GCM ? 16 : 32 }
  /// Bytes of the salt that follows the key in the key material (RFC 4106 §8.1, RFC 7634 §2).
  public static let saltLength = 4
  /// Bytes of key material: key, then salt.
  public var keyMaterialLength: Int { keyLength + Cipher.saltLength }
}

extension KeyMaterial {
  /// The four bytes behind the key proper, as they stand in memory.
  func salt(_ cipher: Cipher) -> UInt32 { word(cipher.keyLength) }
}
