import COpenSSL
public import PacketIO

/// Keys from secrets.
package enum KeyDerivation {
  /// HKDF with SHA-256 (RFC 5869).
  /// - Parameters:
  ///   - secret: the input keying material, not empty.
  ///   - salt: may be empty, which stands for 32 zero bytes.
  ///   - info: 1024 bytes at most.
  ///   - count: bytes to derive, 1 to 8160.
  package static func hkdfSHA256(secret: KeyMaterial, salt: [UInt8], info: [UInt8], count: Int) -> KeyMaterial {
    precondition(secret.count > 0 && info.count <= 1024 && (1...8160).contains(count))
    var derived = [UInt8](repeating: 0, count: count)
    let done = unsafe secret.withBytes { secret in
      unsafe culvert_hkdf_sha256(
        secret.baseAddress, secret.count, salt, salt.count, info, info.count, &derived, derived.count)
    }
    // The arguments are in range, so only memory can have run out.
    precondition(done == 1, "OpenSSL failed to derive a key")
    return KeyMaterial(taking: &derived)
  }
}

/// SPIs and keys for both directions between two gateways, from one secret that both know.
///
/// For set-ups without a key exchange: both sides derive the same two associations, and each takes the other's
/// outbound one as its inbound one. Anybody can compute them. For the direction from gateway S to gateway R:
///
///     output = HKDF-SHA-256 (RFC 5869)
///       IKM  = the secret
///       salt = none (that is, 32 zero bytes)
///       info = field("culvert static association v1") ‖ field(cipher) ‖ field(S) ‖ field(R)
///       L    = 4 + the cipher's key material of 20 (aes-128-gcm) or 36 bytes
///     field(x) = the length of x in bytes, as one byte, then x in UTF-8
///     cipher   = "aes-128-gcm", "aes-256-gcm" or "chacha20-poly1305"
///     SPI      = the first 4 bytes of the output as a big-endian number; if it is below 256, that plus 256
///     key      = the rest of the output: the key, then the 4 bytes of salt
///
/// A gateway with several workers seals under an association of its own in each, so that no two of them ever count the
/// same sequence numbers (as RFC 9611 has it, without its negotiation). For worker W, 0 to 15, of gateway S:
///
///     info = field("culvert worker association v1") ‖ field(cipher) ‖ field(S) ‖ field(R) ‖ W as one byte
///     SPI  = as above, with W in place of its last four bits
///
/// The same secret and names give the same keys again, after every restart. So the sender's sequence numbers must
/// go on where they stopped (invariant 1): see `SequenceLease`.
public struct StaticAssociations: Sendable, Equatable {
  /// Shorter secrets are refused, bytes.
  public static let minimumSecretLength = 32

  /// Under which this gateway seals.
  public let outbound: (spi: UInt32, key: KeyMaterial)
  /// Under which the partner seals.
  public let inbound: (spi: UInt32, key: KeyMaterial)

  /// How many workers a gateway can have.
  public static let mostWorkers = 16

  /// - Parameters:
  ///   - worker: nil: the associations that there always are; a number from 0 to 15: those of one of several workers.
  ///   - secret: 32 bytes or more, random.
  ///   - local: this gateway's name, 1 to 255 bytes.
  ///   - remote: the partner's name, as the partner itself gives it as `local`.
  /// - Throws: `ConfigurationError` about the peer `remote`.
  public init(secret: KeyMaterial, local: String, remote: String, cipher: Cipher, worker: Int? = nil)
    throws(ConfigurationError)
  {
    precondition((0..<StaticAssociations.mostWorkers).contains(worker ?? 0))
    func refuse(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .peer(remote), setting: setting, problem: problem, remedy: remedy)
    }
    guard secret.count >= StaticAssociations.minimumSecretLength else {
      throw refuse(
        "secret", "\(secret.count) bytes are too few to be safe",
        "use at least \(StaticAssociations.minimumSecretLength) random bytes")
    }
    for name in [local, remote] where !(1...255).contains(name.utf8.count) {
      throw refuse(
        "name", "a gateway's name has \(name.utf8.count) bytes", "give each gateway a name of 1 to 255 bytes")
    }
    // With equal names both directions would have one key, and nonces would repeat under it.
    guard local != remote else {
      throw refuse("name", "both gateways are called \"\(local)\"", "give each gateway a name of its own")
    }
    outbound = StaticAssociations.derive(secret, from: local, to: remote, cipher, worker)
    inbound = StaticAssociations.derive(secret, from: remote, to: local, cipher, worker)
  }

  private static func derive(
    _ secret: KeyMaterial, from sender: String, to receiver: String, _ cipher: Cipher, _ worker: Int?
  ) -> (spi: UInt32, key: KeyMaterial) {
    var info: [UInt8] = []
    for field in ["culvert \(worker == nil ? "static" : "worker") association v1", cipher.rawValue, sender, receiver] {
      info.append(UInt8(field.utf8.count))
      info.append(contentsOf: field.utf8)
    }
    if let worker { info.append(UInt8(worker)) }
    let output = KeyDerivation.hkdfSHA256(
      secret: secret, salt: [], info: info, count: 4 + cipher.keyMaterialLength)
    return unsafe output.withBytes { bytes in
      let number = unsafe UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
      var key = unsafe [UInt8](bytes.dropFirst(4))
      let spi = number < 256 ? number + 256 : number
      return (spi: worker.map { spi & ~15 | UInt32($0) } ?? spi, key: KeyMaterial(taking: &key))
    }
  }

  public static func == (a: StaticAssociations, b: StaticAssociations) -> Bool {
    a.outbound == b.outbound && a.inbound == b.inbound
  }
}
