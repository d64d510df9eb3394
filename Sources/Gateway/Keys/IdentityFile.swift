import Glibc
public import Host
public import Identity
import PacketIO

/// Files of a gateway's identity: the private key in PEM (PKCS #8, RFC 5958), which only its owner may read, and beside
/// it the public one (`SubjectPublicKeyInfo`, RFC 5280), which partners may have.
public enum IdentityFile {
  private static let makeOne = "make one with 'culvert keygen --identity FILE'"

  /// - Throws: `OperatorError` for a file that is missing, no such key, not this user's, or open to others.
  public static func read(_ path: String) throws(OperatorError) -> HostIdentity {
    do {
      var text = try PrivateFile.read(path, "identity file", remedy: makeOne)
      return try HostIdentity(pem: KeyMaterial(taking: &text))
    } catch {
      switch (KeyFileContent(of: path), error) {
      case (.publicIdentity, _):
        let half = path.hasSuffix(".pub") ? String(path.dropLast(4)) : "the file beside which FILE.pub was written"
        throw OperatorError("identity file \(path) holds the public half only", remedy: "name the private one, \(half)")
      case (.secret, _):
        throw OperatorError(
          "identity file \(path) holds a secret, and no identity",
          remedy: "write 'secret' at the peer that shares it; \(makeOne)")
      case (.signingKey, _), (.verificationKey, _):
        throw OperatorError("identity file \(path) holds a control system's key, and no identity", remedy: makeOne)
      case (_, let error as HostIdentityError):
        throw OperatorError("identity file \(path): \(error.problem)", remedy: error.remedy)
      case (_, let error as OperatorError): throw error
      default: throw OperatorError("identity file \(path): \(error)", remedy: makeOne)
      }
    }
  }

  /// What can be told of either half of an identity.
  /// - Throws: `OperatorError`, as the one that reads the half.
  public static func readEither(
    _ path: String
  ) throws(OperatorError) -> (identity: PublicHostIdentity, isPrivate: Bool) {
    if case .publicIdentity = KeyFileContent(of: path) { return (try readPublic(path), false) }
    return (try read(path).publicIdentity, true)
  }

  /// The public half of somebody's identity.
  /// - Throws: `OperatorError`.
  public static func readPublic(_ path: String) throws(OperatorError) -> PublicHostIdentity {
    switch KeyFileContent(of: path) {
    case .privateIdentity:
      throw OperatorError(
        "public key file \(path) holds a private key, which its gateway alone is to have",
        remedy: "name its public half, \(path).pub")
    case .secret:
      throw OperatorError("public key file \(path) holds a secret", remedy: "write 'secret' instead of 'key'")
    case .signingKey, .verificationKey:
      throw OperatorError(
        "public key file \(path) holds a control system's key",
        remedy: "bring FILE.pub from the peer, which 'culvert keygen --identity FILE' has made there")
    case .publicIdentity, nil: break
    }
    do {
      let file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
      return try PublicHostIdentity(pem: String(decoding: try file.readAll(limit: 8192), as: UTF8.self))
    } catch let error as SystemError {
      throw OperatorError(
        "public key file \(path) cannot be read: \(error.reason)",
        remedy: "bring it from the peer: 'culvert keygen --identity FILE' has made FILE.pub there")
    } catch let error as HostIdentityError {
      throw OperatorError("public key file \(path): \(error.problem)", remedy: error.remedy)
    } catch {
      throw OperatorError("public key file \(path): \(error)", remedy: "bring it from the peer again")
    }
  }

  /// Writes a new identity with mode 0600, and its public half to PATH.pub; each as a whole or not at all.
  /// - Parameter replace: false: if either file exists, it is refused, and neither is written.
  public static func create(_ kind: HostIdentity.Kind, at path: String, replace: Bool = false) throws -> HostIdentity {
    for file in [path, "\(path).pub"] where !replace && (try? FileStatus(of: file)) != nil {
      throw OperatorError("\(file) exists already", remedy: "choose another name, or overwrite it with --force")
    }
    let identity = HostIdentity.generate(kind)
    var text = identity.pem().copy()
    defer { wipe(&text) }
    try PosixFile.writeAtomically(text, to: path, replace: replace)
    let half = Array(identity.publicIdentity.pem.utf8)
    try PosixFile.writeAtomically(half, to: "\(path).pub", mode: 0o644, replace: replace)
    return identity
  }
}
