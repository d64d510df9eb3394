import Glibc
import PacketIO

/// Files that only their owner may read: who may is as important as what is in them.
package enum PrivateFile {
  /// Bytes that one may have.
  package static let largest = 8192

  /// What is in it, before it is known to be what it should be.
  /// - Parameters:
  ///   - what: what the file is called in errors.
  ///   - remedy: what to do when there is none.
  package static func read(
    _ path: String, _ what: String, remedy makeOne: String
  ) throws(OperatorError) -> [UInt8] {
    let file: Descriptor
    do {
      // Non-blocking, so that a pipe in the place of a file is refused and not waited for.
      file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
    } catch {
      let remedy = error.errno == ENOENT ? makeOne : "run as the user who owns it"
      throw OperatorError("\(what) \(path) cannot be read: \(error.reason)", remedy: remedy)
    }
    try check(file.status, "\(what) \(path)", path, makeOne)
    do {
      return try file.readAll(limit: largest)
    } catch {
      throw OperatorError("\(what) \(path) cannot be read: \(error.reason)", remedy: makeOne)
    }
  }

  private static func check(
    _ status: FileStatus, _ file: String, _ path: String, _ makeOne: String
  ) throws(OperatorError) {
    guard status.isRegular else { throw OperatorError("\(file) is not a plain file", remedy: makeOne) }
    guard status.size <= largest else { throw OperatorError("\(file) is too long", remedy: makeOne) }
    guard status.owner == geteuid() || status.owner == 0 else {
      throw OperatorError(
        "\(file) belongs to user \(status.owner)", remedy: "chown it to user \(geteuid()), who runs this")
    }
    guard status.foreignPermissions == 0 else {
      throw OperatorError("\(file) can be used by others", remedy: "chmod 600 \(path)")
    }
  }
}
