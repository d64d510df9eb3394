import Glibc
import PacketIO

/// What a file with a key in it holds, as its text tells: for errors that say where it belongs.
package enum KeyFileContent: Sendable {
  case privateIdentity, publicIdentity, secret
  /// Halves of a control system's key.
  case signingKey, verificationKey

  /// Files that are no PEM begin with such a line.
  package static let secretComment = "# culvert pre-shared secret"
  package static let signingComment = "# culvert signing key"
  package static let verificationComment = "# culvert public key"

  /// Nil: none of these, or it cannot be read.
  package init?(of path: String) {
    guard let file = try? Descriptor(open: path, O_RDONLY | O_NONBLOCK), file.status.isRegular,
      var text = try? file.readAll(limit: PrivateFile.largest)
    else { return nil }
    defer { wipe(&text) }
    let comments: [(String, KeyFileContent)] = [
      (KeyFileContent.secretComment, .secret), (KeyFileContent.signingComment, .signingKey),
      (KeyFileContent.verificationComment, .verificationKey),
    ]
    if let known = comments.first(where: { text.starts(with: $0.0.utf8) }) {
      self = known.1
    } else if text.contains("PRIVATE KEY-----".utf8) {
      self = .privateIdentity
    } else if text.contains("-----BEGIN PUBLIC KEY-----".utf8) {
      self = .publicIdentity
    } else {
      return nil
    }
  }
}
