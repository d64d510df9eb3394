import COpenSSL
import Glibc
import PacketIO

/// The public half of an Ed25519 key (RFC 8032).
public struct HairpinPublicKey: Hashable, Sendable {
  /// Bytes.
  public static let length = 32

  /// 32 bytes.
  public let bytes: [UInt8]

  /// Nil for another number of bytes.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count == HairpinPublicKey.length else { return nil }
    self.bytes = bytes
  }

  /// Whether `signature` was made of `message` with the private half (RFC 8032 §5.1.7). False also for a key that is
  /// no point of the curve.
  public func verifies(_ signature: [UInt8], of message: [UInt8]) -> Bool {
    guard signature.count == 64,
      let key = unsafe EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, bytes, bytes.count)
    else { return false }
    defer { unsafe EVP_PKEY_free(key) }
    guard let context = unsafe EVP_MD_CTX_new() else { return false }
    defer { unsafe EVP_MD_CTX_free(context) }
    guard unsafe EVP_DigestVerifyInit(context, nil, nil, nil, key) == 1 else { return false }
    return unsafe EVP_DigestVerify(context, signature, signature.count, message, message.count) == 1
  }

  /// Whether the last 64 bytes are such a signature of those before.
  package func hasSigned(_ whole: [UInt8]) -> Bool { verifies(Array(whole.suffix(64)), of: Array(whole.dropLast(64))) }
}

/// The private half of an Ed25519 key (RFC 8032). Never printed.
public struct HairpinPrivateKey: Sendable, CustomStringConvertible, CustomDebugStringConvertible {
  /// Bytes of the seed.
  public static let length = 32

  private let seed: Seed
  public let publicKey: HairpinPublicKey

  /// Nil for another number of bytes than 32. Who has them is to wipe them.
  public init?(seed: [UInt8]) {
    guard seed.count == HairpinPrivateKey.length,
      let key = unsafe EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, seed, seed.count)
    else { return nil }
    defer { unsafe EVP_PKEY_free(key) }
    var bytes = [UInt8](repeating: 0, count: HairpinPublicKey.length)
    var count = bytes.count
    guard unsafe EVP_PKEY_get_raw_public_key(key, &bytes, &count) == 1, let publicKey = HairpinPublicKey(bytes) else {
      return nil
    }
    self.seed = Seed(seed)
    self.publicKey = publicKey
  }

  /// A new key; nil only when the library fails. `generator` must be the system's where it counts.
  public static func generate(using generator: inout some RandomNumberGenerator) -> HairpinPrivateKey? {
    var seed = (0..<length).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    defer { unsafe seed.withUnsafeMutableBytes { unsafe explicit_bzero($0.baseAddress!, $0.count) } }
    return HairpinPrivateKey(seed: seed)
  }

  /// The seed in base64, for the file that the key is kept in; who gets it is to wipe it.
  package func seedText() -> [UInt8] {
    var copy = unsafe [UInt8](UnsafeRawBufferPointer(start: seed.bytes, count: HairpinPrivateKey.length))
    defer { unsafe copy.withUnsafeMutableBytes { unsafe explicit_bzero($0.baseAddress!, $0.count) } }
    return Base64.text(of: copy)
  }

  /// 64 bytes (RFC 8032 §5.1.6); nil only when the library fails.
  public func sign(_ message: [UInt8]) -> [UInt8]? {
    guard
      let key = unsafe EVP_PKEY_new_raw_private_key(
        EVP_PKEY_ED25519, nil, seed.bytes.assumingMemoryBound(to: UInt8.self), HairpinPrivateKey.length)
    else { return nil }
    defer { unsafe EVP_PKEY_free(key) }
    guard let context = unsafe EVP_MD_CTX_new() else { return nil }
    defer { unsafe EVP_MD_CTX_free(context) }
    var signature = [UInt8](repeating: 0, count: 64)
    var count = signature.count
    guard unsafe EVP_DigestSignInit(context, nil, nil, nil, key) == 1,
      unsafe EVP_DigestSign(context, &signature, &count, message, message.count) == 1, count == 64
    else { return nil }
    return signature
  }

  /// The seed's bytes, in memory that is neither swapped nor dumped, and zeroed when the last user lets go.
  @safe private final class Seed: Sendable {
    // Written once, before anybody else can see it.
    nonisolated(unsafe) let bytes: UnsafeMutableRawPointer

    init(_ seed: [UInt8]) {
      unsafe bytes = allocateState(bytes: HairpinPrivateKey.length)
      unsafe bytes.copyMemory(from: seed, byteCount: HairpinPrivateKey.length)
    }

    deinit {
      unsafe explicit_bzero(bytes, HairpinPrivateKey.length)
      unsafe freeState(bytes, bytes: HairpinPrivateKey.length)
    }
  }

  public var description: String { "private key of \(Base64.encode(publicKey.bytes))" }
  public var debugDescription: String { description }
}

/// HMAC-SHA-256 (RFC 2104): what a proxy gives out and recognises without having kept it.
package struct MessageCode {
  package static let length = 32
  private let secret: [UInt8]

  package init(secret: [UInt8]) { self.secret = secret }

  /// 32 bytes; empty, which equals no code, when the library fails.
  package func code(of message: [UInt8]) -> [UInt8] {
    var code = [UInt8](repeating: 0, count: MessageCode.length)
    var count = 0
    let made = unsafe EVP_Q_mac(
      nil, "HMAC", nil, "SHA256", nil, secret, secret.count, message, message.count, &code, code.count, &count)
    return unsafe made != nil && count == MessageCode.length ? code : []
  }

  /// In a time that does not depend on the bytes.
  package static func equal(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    guard a.count == b.count, !a.isEmpty else { return false }
    return unsafe CRYPTO_memcmp(a, b, a.count) == 0
  }
}
