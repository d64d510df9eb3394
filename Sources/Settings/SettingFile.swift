import Glibc
import Host
import PacketIO

extension Setting {
  /// Reads a file of settings.
  /// - Parameters:
  ///   - path: under which problems are reported; "-" is standard input. It may be a pipe.
  ///   - remedy: what to do when there is no such file, "give the path of a gateway's file".
  ///   - firstSetting: what a file without settings needs first.
  /// Whoever can write a program's file can have it do anything, so a plain file is to be its user's or root's, and
  /// nobody else's to write.
  ///
  /// - Throws: `FileProblem`.
  package init(contentsOf path: String, remedy: String, firstSetting: String) throws(FileProblem) {
    let bytes: [UInt8]
    var status: FileStatus?
    do throws(SystemError) {
      if path == "-" {
        bytes = try Descriptor(adopting: dup(STDIN_FILENO)).readAll(limit: Setting.largestFile)
      } else {
        // Not blocking, so that a pipe without a writer is an error after a while and not the end of a gateway.
        let file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
        status = file.status
        if file.status.isPipe { try file.waitUntilReadable() }
        bytes = try file.readAll(limit: Setting.largestFile)
      }
    } catch {
      throw FileProblem(file: path, problem: "cannot be read: \(error.reason)", remedy: remedy)
    }
    if let status, status.isRegular { try Setting.checkOwner(of: status, path) }
    guard bytes.count <= Setting.largestFile, let text = String(validating: bytes, as: UTF8.self) else {
      throw FileProblem(file: path, problem: "is not a text file", remedy: "save it as UTF-8, below 16 MiB")
    }
    try self.init(parsing: text, file: path, firstSetting: firstSetting)
  }

  private static func checkOwner(of status: FileStatus, _ path: String) throws(FileProblem) {
    guard status.owner == 0 || status.owner == geteuid() else {
      throw FileProblem(
        file: path, problem: "belongs to user \(status.owner)", remedy: "chown it to user \(geteuid()), who runs this")
    }
    guard status.mode & 0o022 == 0 else {
      throw FileProblem(file: path, problem: "can be written by others", remedy: "chmod go-w \(path)")
    }
  }
}
