import COpenSSL
import Identity
import PacketIO

/// Keys from secrets, as the library makes them. All its arguments are in range where it is called, so that only a
/// library without an algorithm, or without memory, can fail: nothing may go on then.
enum OpenSSLDerivation {
  static func hkdf(_ name: String, secret: KeyMaterial, salt: [UInt8], info: [UInt8], count: Int) -> KeyMaterial {
    precondition(secret.count > 0 && info.count <= 1024 && (1...8160).contains(count))
    var output = [UInt8](repeating: 0, count: count)
    let done = unsafe secret.withBytes { secret in
      unsafe culvert_hkdf(
        name, secret.baseAddress, secret.count, salt, salt.count, info, info.count, &output, count)
    }
    precondition(done == 1, "OpenSSL failed to derive a key")
    return KeyMaterial(taking: &output)
  }

  static func oneStepKMAC128(secret: KeyMaterial, salt: [UInt8], info: [UInt8], count: Int) -> KeyMaterial {
    precondition(secret.count > 0 && info.count <= 1024 && (1...8160).contains(count))
    // The salt that stands for none (SP 800-56C rev. 2 §4.1).
    let salt = salt.isEmpty ? [UInt8](repeating: 0, count: 164) : salt
    let counter: [UInt8] = [0, 0, 0, 1]
    let custom = Array("KDF".utf8)
    var output = [UInt8](repeating: 0, count: count)
    let done = unsafe secret.withBytes { secret in
      unsafe culvert_kmac128(
        salt, salt.count, counter, counter.count, secret.baseAddress, secret.count, info, info.count, custom,
        custom.count, &output, count)
    }
    precondition(done == 1, "OpenSSL failed to derive a key")
    return KeyMaterial(taking: &output)
  }

  /// The shared secret, 32 or 48 bytes; nil where it would be zero.
  static func agree(_ key: OpenSSLKey, with peer: OpenSSLKey, count: Int) -> KeyMaterial? {
    var secret = [UInt8](repeating: 0, count: count)
    guard unsafe culvert_agree(key.pointer, peer.pointer, &secret, count) == 1 else { return nil }
    return KeyMaterial(taking: &secret)
  }
}
