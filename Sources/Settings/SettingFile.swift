import Glibc
import Host
import PacketIO

extension Setting {
  /// Reads a file of settings.
  /// - Parameters:
  ///   - path: under which problems are reported; "-" is standard input. It may be a pipe.
  ///   - remedy: what to do when there is no such file, "give the path of a gateway's file".
  ///   - firstSetting: what a file without settings needs first.
  /// - Throws: `FileProblem`.
  package init(contentsOf path: String, remedy: String, firstSetting: String) throws(FileProblem) {
    let bytes: [UInt8]
    do throws(SystemError) {
      if path == "-" {
        bytes = try Descriptor(adopting: dup(STDIN_FILENO)).readAll(limit: Setting.largestFile)
      } else {
        // Not blocking, so that a pipe without a writer is an error after a while and not the end of a gateway.
        let file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
        if file.status.isPipe { try file.waitUntilReadable() }
        bytes = try file.readAll(limit: Setting.largestFile)
      }
    } catch {
      throw FileProblem(file: path, problem: "cannot be read: \(error.reason)", remedy: remedy)
    }
    guard bytes.count <= Setting.largestFile, let text = String(validating: bytes, as: UTF8.self) else {
      throw FileProblem(file: path, problem: "is not a text file", remedy: "save it as UTF-8, below 16 MiB")
    }
    try self.init(parsing: text, file: path, firstSetting: firstSetting)
  }
}
