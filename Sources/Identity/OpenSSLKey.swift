import COpenSSL
package import PacketIO

/// A curve of NIST's on which identities and Diffie-Hellman values lie.
package enum PrimeCurve {
  case p256, p384

  /// Bytes of a coordinate and of a scalar.
  package var length: Int { self == .p256 ? 32 : 48 }

  fileprivate var number: Int32 { self == .p256 ? NID_X9_62_prime256v1 : NID_secp384r1 }

  /// A number of 1..<n as it is, or any other as 1 + (number mod (n - 1)).
  /// - Parameter always: the second rule for every number.
  package func scalar(_ number: KeyMaterial, always: Bool = false) -> KeyMaterial {
    var scalar = [UInt8](repeating: 0, count: length)
    let done = unsafe number.withBytes { bytes in
      unsafe culvert_ec_scalar(
        self.number, always ? 1 : 0, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count, &scalar,
        scalar.count)
    }
    precondition(done == 1, "OpenSSL failed to reduce a number")
    return KeyMaterial(taking: &scalar)
  }
}

/// What a key is for, and how it signs.
enum KeyForm: Equatable {
  case prime(PrimeCurve)
  case ed25519
  case rsa

  /// What the digest is called, the bytes of each of ECDSA's two numbers, and those of the salt of RSA-PSS.
  fileprivate var scheme: (digest: String?, half: Int32, salt: Int32) {
    switch self {
    case .prime(let curve): ("SHA384", curve == .p256 ? 32 : 48, 0)
    case .ed25519: (nil, 0, 0)
    case .rsa: ("SHA256", 0, 32)
    }
  }
}

/// A key of any kind in the library's hands, which zeroes private ones when it frees them. It is never changed after it
/// was made, and the library lets threads share such keys.
@safe package final class OpenSSLKey: Sendable {
  package nonisolated(unsafe) let pointer: OpaquePointer

  private init?(_ pointer: OpaquePointer?) {
    guard let pointer = unsafe pointer else { return nil }
    unsafe self.pointer = unsafe pointer
  }

  deinit { unsafe EVP_PKEY_free(pointer) }

  // MARK: From bytes

  /// Nil where the point is not on the curve.
  package convenience init?(_ curve: PrimeCurve, point coordinates: some Collection<UInt8>) {
    let point = [4] + Array(coordinates)
    guard point.count == 1 + 2 * curve.length else { return nil }
    unsafe self.init(culvert_public_ec(curve.number, point, point.count))
  }

  /// - Parameter scalar: of 1..<n, as long as the curve's coordinates.
  package convenience init?(_ curve: PrimeCurve, scalar: KeyMaterial) {
    unsafe self.init(
      scalar.withBytes { bytes in
        unsafe culvert_private_ec(curve.number, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count)
      })
  }

  convenience init?(ed25519 bytes: some Collection<UInt8>) {
    let bytes = Array(bytes)
    unsafe self.init(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, bytes, bytes.count))
  }

  convenience init?(ed25519Seed seed: KeyMaterial) { self.init(raw: EVP_PKEY_ED25519, seed) }

  package convenience init?(x25519 bytes: some Collection<UInt8>) {
    let bytes = Array(bytes)
    unsafe self.init(EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nil, bytes, bytes.count))
  }

  package convenience init?(x25519Scalar scalar: KeyMaterial) { self.init(raw: EVP_PKEY_X25519, scalar) }

  private convenience init?(raw type: Int32, _ secret: KeyMaterial) {
    unsafe self.init(
      secret.withBytes { bytes in
        unsafe EVP_PKEY_new_raw_private_key(
          type, nil, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count)
      })
  }

  /// - Parameters:
  ///   - exponent: 8 bytes at most.
  ///   - modulus: 384 bytes at most.
  convenience init?(rsaExponent exponent: [UInt8], modulus: [UInt8]) {
    unsafe self.init(culvert_public_rsa(exponent, exponent.count, modulus, modulus.count))
  }

  // MARK: Anew

  static func generate(_ curve: PrimeCurve) -> OpenSSLKey? { unsafe OpenSSLKey(culvert_generate_ec(curve.number)) }

  static func generateEd25519() -> OpenSSLKey? { unsafe OpenSSLKey(culvert_generate_ed25519()) }

  static func generateRSA(bits: Int) -> OpenSSLKey? { unsafe OpenSSLKey(culvert_generate_rsa(bits)) }

  // MARK: PEM

  enum PEMProblem: Error { case encrypted, unreadable }

  static func read(pem: KeyMaterial) throws(PEMProblem) -> OpenSSLKey {
    var encrypted: Int32 = 0
    let key = unsafe OpenSSLKey(
      pem.withBytes { bytes in unsafe culvert_read_pem(1, bytes.baseAddress, bytes.count, &encrypted) })
    guard let key else { throw encrypted == 1 ? .encrypted : .unreadable }
    return key
  }

  static func read(publicPEM pem: [UInt8]) -> OpenSSLKey? {
    var encrypted: Int32 = 0
    return unsafe OpenSSLKey(culvert_read_pem(0, pem, pem.count, &encrypted))
  }

  /// More than any key has that is not refused.
  private static let longestPEM = 8192

  func privatePEM() -> KeyMaterial {
    var bytes = [UInt8](repeating: 0, count: OpenSSLKey.longestPEM)
    let count = unsafe culvert_write_pem(1, pointer, &bytes, bytes.count)
    precondition(count > 0, "OpenSSL failed to write a key")
    var text = Array(bytes.prefix(count))
    // The first copy as well.
    _ = KeyMaterial(taking: &bytes)
    return KeyMaterial(taking: &text)
  }

  func publicPEM() -> String {
    var bytes = [UInt8](repeating: 0, count: OpenSSLKey.longestPEM)
    let count = unsafe culvert_write_pem(0, pointer, &bytes, bytes.count)
    precondition(count > 0, "OpenSSL failed to write a key")
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }

  // MARK: What it is

  /// Nil for a key of a kind or on a curve that no identity has.
  var form: KeyForm? {
    switch unsafe culvert_key_type(pointer) {
    case EVP_PKEY_ED25519: return .ed25519
    case EVP_PKEY_RSA: return .rsa
    case EVP_PKEY_EC:
      switch unsafe culvert_curve(pointer) {
      case PrimeCurve.p256.number: return .prime(.p256)
      case PrimeCurve.p384.number: return .prime(.p384)
      default: return nil
      }
    default: return nil
    }
  }

  /// Of an RSA modulus.
  var bits: Int { unsafe Int(clamping: culvert_key_bits(pointer)) }

  /// x ‖ y.
  package func point(_ curve: PrimeCurve) -> [UInt8] {
    number(OSSL_PKEY_PARAM_EC_PUB_X, count: curve.length) + number(OSSL_PKEY_PARAM_EC_PUB_Y, count: curve.length)
  }

  var rsaExponent: [UInt8] { number(OSSL_PKEY_PARAM_RSA_E) }
  var rsaModulus: [UInt8] { number(OSSL_PKEY_PARAM_RSA_N) }

  /// Empty where the key has no such number, or one that is longer.
  private func number(_ name: String, count: Int? = nil) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count ?? (unsafe culvert_key_number(pointer, name, nil, 0)))
    guard !bytes.isEmpty else { return [] }
    let written = unsafe culvert_key_number(pointer, name, &bytes, bytes.count)
    return Array(bytes.prefix(written))
  }

  /// The 32 bytes of an Ed25519 or X25519 key's public half.
  package var raw: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 32)
    var count = bytes.count
    guard unsafe EVP_PKEY_get_raw_public_key(pointer, &bytes, &count) == 1 else { return [] }
    return Array(bytes.prefix(count))
  }

  // MARK: What it does

  func sign(_ bytes: [UInt8], as form: KeyForm) -> [UInt8] {
    guard let signature = trySigning(bytes, as: form) else { preconditionFailure("OpenSSL failed to sign") }
    return signature
  }

  /// Nil where the key's numbers are no key.
  func trySigning(_ bytes: [UInt8], as form: KeyForm) -> [UInt8]? {
    let scheme = form.scheme
    var signature = [UInt8](repeating: 0, count: 512)
    let count = unsafe culvert_sign(
      pointer, scheme.digest, scheme.half, scheme.salt, bytes, bytes.count, &signature, signature.count)
    return count > 0 ? Array(signature.prefix(Int(count))) : nil
  }

  func isValid(_ signature: [UInt8], over bytes: [UInt8], as form: KeyForm) -> Bool {
    let scheme = form.scheme
    guard scheme.half == 0 || signature.count == 2 * Int(clamping: scheme.half) else { return false }
    return unsafe culvert_verify(
      pointer, scheme.digest, scheme.half, scheme.salt, bytes, bytes.count, signature, signature.count) == 1
  }

  /// ECDSA with SHA-384 and the nonce of RFC 6979, in a time that depends on the key.
  static func signDeterministically(_ bytes: [UInt8], _ curve: PrimeCurve, scalar: KeyMaterial) -> [UInt8] {
    var signature = [UInt8](repeating: 0, count: 2 * curve.length)
    let done = unsafe scalar.withBytes { scalar in
      unsafe culvert_sign_deterministic(
        curve.number, scalar.assumingMemoryBound(to: UInt8.self).baseAddress, curve.length, OpenSSLHash.sha384(bytes),
        &signature)
    }
    precondition(done == 1, "OpenSSL failed to sign")
    return signature
  }
}
