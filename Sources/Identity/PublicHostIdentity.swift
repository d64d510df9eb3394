import PacketIO

/// The public half of a gateway's key, and the tag that it is known by.
///
/// Only what can be used is ever one: points lie on their curve, RSA has 2048 to 3072 bits.
public struct PublicHostIdentity: Hashable, Sendable {
  /// The hash of the key (RFC 7401 §3.2, RFC 9374 §3.5).
  public let tag: HostIdentityTag
  public let suite: HostIdentitySuite
  /// The algorithm of a HOST_ID: 5 RSA, 7 ECDSA, 13 EdDSA.
  public let algorithm: UInt16
  /// The key as a HOST_ID holds it: ECDSA curve ‖ 04 ‖ x ‖ y (67 or 99 bytes), EdDSA curve ‖ 0 ‖ key (36), RSA as in
  /// RFC 3110 §2 (up to 393).
  public let hostIdentity: [UInt8]

  let key: OpenSSLKey
  let form: KeyForm

  /// The 16 bytes that no other kind of hash begins with (RFC 7401 §3.2, RFC 7343 §2).
  private static let context: [UInt8] = [
    0xF0, 0xEF, 0xF0, 0x2F, 0xBF, 0xF4, 0x3D, 0x0F, 0xE7, 0x93, 0x0C, 0x3C, 0x6E, 0x61, 0x74, 0xEA,
  ]
  static let rsaBits = 2048...3072

  private init(
    _ suite: HostIdentitySuite, _ algorithm: UInt16, _ hostIdentity: [UInt8], _ key: OpenSSLKey, _ form: KeyForm
  ) {
    self.suite = suite
    self.algorithm = algorithm
    self.hostIdentity = hostIdentity
    self.key = key
    self.form = form
    let input = PublicHostIdentity.context + (suite == .edDSA ? hostIdentity.dropFirst(4) : hostIdentity[...])
    // Of RHASH the middle 96 bits (RFC 7343 §2), but of a function of any length the first.
    let hash =
      suite == .edDSA
      ? OpenSSLHash.shake128(input, count: 12)
      : Array(suite.hash(input).dropFirst((suite.hashLength - 12) / 2).prefix(12))
    tag = HostIdentityTag(suite: suite, hash: hash)
  }

  /// - Parameters:
  ///   - algorithm: of a HOST_ID.
  ///   - hostIdentity: the key, in the form of `hostIdentity`; nil where it cannot be used.
  public init?(algorithm: UInt16, hostIdentity: some Collection<UInt8>) {
    let bytes = Array(hostIdentity)
    switch algorithm {
    case 5:
      // RFC 3110's long form is for exponents that are longer than any here.
      guard let count = bytes.first, (1...8).contains(count), bytes.count > 1 + Int(count) else { return nil }
      let exponent = Array(bytes[1...].prefix(Int(count)))
      let modulus = Array(bytes[(1 + Int(count))...])
      guard let key = PublicHostIdentity.rsa(exponent, modulus) else { return nil }
      self.init(.rsa, algorithm, bytes, key, .rsa)
    case 7:
      let curve: PrimeCurve
      switch bytes.prefix(3) {
      case [0, 1, 4]: curve = .p256
      case [0, 2, 4]: curve = .p384
      default: return nil
      }
      guard let key = OpenSSLKey(curve, point: bytes.dropFirst(3)) else { return nil }
      self.init(.ecdsa, algorithm, bytes, key, .prime(curve))
    case 13:
      guard bytes.count == 36, bytes.prefix(4) == [0, 1, 0, 0], let key = OpenSSLKey(ed25519: bytes.dropFirst(4)) else {
        return nil
      }
      self.init(.edDSA, algorithm, bytes, key, .ed25519)
    default: return nil
    }
  }

  /// Nil where a number has leading zeros, is even, or is out of range: one key has one form, and so one tag.
  private static func rsa(_ exponent: [UInt8], _ modulus: [UInt8]) -> OpenSSLKey? {
    guard let first = exponent.first, first != 0, exponent != [1], exponent.last.map({ $0 & 1 == 1 }) ?? false,
      let top = modulus.first, top != 0, modulus.last.map({ $0 & 1 == 1 }) ?? false,
      rsaBits.contains(modulus.count * 8 - top.leadingZeroBitCount)
    else { return nil }
    return OpenSSLKey(rsaExponent: exponent, modulus: modulus)
  }

  /// Of a key in the library's hands; nil for one that is not supported.
  init?(_ key: OpenSSLKey) {
    switch key.form {
    case .prime(.p256): self.init(algorithm: 7, hostIdentity: [0, 1, 4] + key.point(.p256))
    case .prime(.p384): self.init(algorithm: 7, hostIdentity: [0, 2, 4] + key.point(.p384))
    case .ed25519: self.init(algorithm: 13, hostIdentity: [0, 1, 0, 0] + key.raw)
    case .rsa:
      let exponent = key.rsaExponent
      guard exponent.count <= 8, PublicHostIdentity.rsaBits.contains(key.bits) else { return nil }
      self.init(algorithm: 5, hostIdentity: [UInt8(truncatingIfNeeded: exponent.count)] + exponent + key.rsaModulus)
    case nil: return nil
    }
  }

  /// Of what kind the key is, for people: "ECDSA P-256", "Ed25519", "RSA 3072".
  public var kind: String {
    switch form {
    case .prime(.p256): "ECDSA P-256"
    case .prime(.p384): "ECDSA P-384"
    case .ed25519: "Ed25519"
    case .rsa: "RSA \(key.bits)"
    }
  }

  // MARK: HOST_ID

  /// The content of a HOST_ID parameter without a domain identifier (RFC 7401 §5.2.9).
  public var hostID: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(number: UInt16(truncatingIfNeeded: hostIdentity.count))
    bytes += [0, 0]
    bytes.append(number: algorithm)
    return bytes + hostIdentity
  }

  /// The key of a HOST_ID parameter's content. A domain identifier is skipped: nobody vouches for it. Nil: malformed,
  /// or a key that cannot be used.
  public init?(hostID: some Collection<UInt8>) {
    var reader = ByteReader(Array(hostID)[...])
    guard let count = reader.number(UInt16.self), let domain = reader.number(UInt16.self),
      let algorithm = reader.number(UInt16.self), let key = reader.take(Int(count)),
      reader.skip(Int(domain & 0xFFF)), reader.isAtEnd
    else { return nil }
    self.init(algorithm: algorithm, hostIdentity: key)
  }

  // MARK: Signatures

  /// Whether the private half made `signature` of `bytes`: r ‖ s over SHA-384 (64 or 96 bytes), Ed25519 (64 bytes, RFC
  /// 8032 §5.1.7), or RSA-PSS with SHA-256 and 32 bytes of salt (as long as the modulus, RFC 8017 §8.1.2).
  public func isValid(signature: [UInt8], over bytes: [UInt8]) -> Bool {
    key.isValid(signature, over: bytes, as: form)
  }

  // MARK: PEM

  /// The key as a SubjectPublicKeyInfo (RFC 7468 §13).
  public var pem: String { key.publicPEM() }

  /// - Parameter pem: a SubjectPublicKeyInfo in PEM (RFC 7468 §13).
  public init(pem: String) throws(HostIdentityError) {
    guard let key = OpenSSLKey.read(publicPEM: Array(pem.utf8)) else {
      throw HostIdentityError(
        problem: "it holds no public key in PEM form", remedy: "give the file with BEGIN PUBLIC KEY in it")
    }
    guard let identity = PublicHostIdentity(key) else { throw .unsupported(key) }
    self = identity
  }

  public static func == (a: PublicHostIdentity, b: PublicHostIdentity) -> Bool {
    a.algorithm == b.algorithm && a.hostIdentity == b.hostIdentity
  }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(algorithm)
    hasher.combine(hostIdentity)
  }
}
