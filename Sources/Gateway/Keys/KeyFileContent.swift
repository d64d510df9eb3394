import Glibc
import Host
import PacketIO

/// What a file with a key in it holds, as its text tells: for errors that say where it belongs.
enum KeyFileContent {
  case privateIdentity, publicIdentity, secret

  /// Nil: none of these, or it cannot be read.
  init?(of path: String) {
    guard let file = try? Descriptor(open: path, O_RDONLY | O_NONBLOCK), file.status.isRegular,
      var text = try? file.readAll(limit: PrivateFile.largest)
    else { return nil }
    defer { wipe(&text) }
    if text.starts(with: KeyFile.secretComment.utf8) {
      self = .secret
    } else if text.contains("PRIVATE KEY-----".utf8) {
      self = .privateIdentity
    } else if text.contains("-----BEGIN PUBLIC KEY-----".utf8) {
      self = .publicIdentity
    } else {
      return nil
    }
  }
}
