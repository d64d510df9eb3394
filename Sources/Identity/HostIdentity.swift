public import PacketIO

/// A gateway's key pair: who has it is the gateway. Never printed.
public final class HostIdentity: Sendable, CustomStringConvertible {
  /// What can be made anew.
  public enum Kind: Sendable, CaseIterable { case p256, p384, ed25519, rsa2048, rsa3072 }

  public let publicIdentity: PublicHostIdentity
  private let key: OpenSSLKey
  /// Signs with the nonce of RFC 6979 where there is one.
  private let deterministic: (curve: PrimeCurve, scalar: KeyMaterial)?

  /// The tag of the public half.
  public var tag: HostIdentityTag { publicIdentity.tag }

  private init(_ key: OpenSSLKey, _ identity: PublicHostIdentity, _ deterministic: (PrimeCurve, KeyMaterial)? = nil) {
    self.key = key
    publicIdentity = identity
    self.deterministic = deterministic
  }

  /// - Parameter key: nil where the library failed to make it, for want of memory or of random numbers.
  private convenience init(made key: OpenSSLKey?, _ deterministic: (PrimeCurve, KeyMaterial)? = nil) {
    guard let key, let identity = PublicHostIdentity(key) else {
      preconditionFailure("OpenSSL failed to make a key")
    }
    self.init(key, identity, deterministic)
  }

  /// A new one, from the system's random numbers. RSA takes up to a second or so.
  public static func generate(_ kind: Kind) -> HostIdentity {
    switch kind {
    case .p256: HostIdentity(made: .generate(.p256))
    case .p384: HostIdentity(made: .generate(.p384))
    case .ed25519: HostIdentity(made: .generateEd25519())
    case .rsa2048: HostIdentity(made: .generateRSA(bits: 2048))
    case .rsa3072: HostIdentity(made: .generateRSA(bits: 3072))
    }
  }

  /// - Parameter pem: an unencrypted private key, PKCS#8 in PEM (RFC 7468 §10): P-256, P-384, Ed25519, or RSA of 2048
  ///   to 3072 bits.
  public convenience init(pem: KeyMaterial) throws(HostIdentityError) {
    let key: OpenSSLKey
    do {
      key = try OpenSSLKey.read(pem: pem)
    } catch {
      switch error {
      case .encrypted:
        throw HostIdentityError(
          problem: "the private key is encrypted",
          remedy: "decrypt it with 'openssl pkey -in FILE', and let only its owner read the file")
      case .unreadable:
        throw HostIdentityError(
          problem: "it holds no private key in PEM form", remedy: "make one with 'culvert keygen --identity FILE'")
      }
    }
    guard let identity = PublicHostIdentity(key) else { throw .unsupported(key) }
    self.init(key, identity)
    // A file can hold halves of two keys, and then nobody believes what this one signs.
    let probe = Array("culvert".utf8)
    guard let signature = key.trySigning(probe, as: identity.form),
      identity.isValid(signature: signature, over: probe)
    else {
      throw HostIdentityError(
        problem: "the private and the public half of the key do not belong together",
        remedy: "make a new one with 'culvert keygen --identity FILE'")
    }
  }

  /// The key in PKCS#8 and PEM (RFC 7468 §10), for the file that it is kept in.
  public func pem() -> KeyMaterial { key.privatePEM() }

  /// What `PublicHostIdentity.isValid` takes.
  public func sign(_ bytes: [UInt8]) -> [UInt8] {
    if let deterministic {
      return OpenSSLKey.signDeterministically(bytes, deterministic.curve, scalar: deterministic.scalar)
    }
    return key.sign(bytes, as: publicIdentity.form)
  }

  /// - Parameter number: any number, reduced to a scalar of P-256 by `PrimeCurve.scalar`.
  package convenience init(p256Number number: KeyMaterial) {
    self.init(made: OpenSSLKey(.p256, scalar: PrimeCurve.p256.scalar(number, always: true)))
  }

  /// - Parameters:
  ///   - p256Scalar: any number; as it is where the curve has it as a scalar.
  ///   - deterministic: signatures are those of RFC 6979 with SHA-384, always the same for the same bytes. For vectors
  ///     and simulations: its time depends on the key.
  package convenience init(p256Scalar: [UInt8], deterministic: Bool) {
    let scalar = PrimeCurve.p256.scalar(KeyMaterial(p256Scalar))
    self.init(made: OpenSSLKey(.p256, scalar: scalar), deterministic ? (.p256, scalar) : nil)
  }

  /// - Parameter ed25519Seed: 32 bytes.
  package convenience init(ed25519Seed: [UInt8]) {
    self.init(made: OpenSSLKey(ed25519Seed: KeyMaterial(ed25519Seed)))
  }

  public var description: String { "private key of \(tag)" }
}

extension HostIdentity: Equatable {
  /// The same key: nobody has two with one tag.
  public static func == (a: HostIdentity, b: HostIdentity) -> Bool { a.tag == b.tag }
}
