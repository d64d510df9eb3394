/// Why a key cannot be an identity, and what to do about it. Tells nothing of a key but its kind.
public struct HostIdentityError: Error, Equatable, CustomStringConvertible {
  /// What is wrong, as half a sentence.
  public let problem: String
  /// What to do, as half a sentence.
  public let remedy: String

  public var description: String { "\(problem): \(remedy)" }

  static func unsupported(_ key: OpenSSLKey) -> HostIdentityError {
    let isOfAnotherLength = key.form == .rsa && !PublicHostIdentity.rsaBits.contains(key.bits)
    return HostIdentityError(
      problem: isOfAnotherLength
        ? "an RSA key of \(key.bits) bits is not supported" : "the key is of a kind that is not supported",
      remedy: "use P-256, P-384, Ed25519, or RSA of 2048 to 3072 bits")
  }
}
