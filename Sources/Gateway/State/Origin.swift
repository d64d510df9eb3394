import Glibc
import Host
import PacketIO

/// A file that says where it was made: on which machine, and when. A copy of it is known by what it says.
enum Origin {
  /// What comes of a look at one.
  enum Finding {
    /// Made here.
    case same
    /// There is none.
    case missing
    case ofAnotherMachine
    /// Made on this machine, but not as this file: what was restored from a backup, or copied.
    case copy

    /// Nil: nothing shows that it is a copy.
    var copy: StateDirectory.Copy? {
      switch self {
      case .same, .missing: nil
      case .ofAnotherMachine: .foreign
      case .copy: .older
      }
    }
  }

  private static let comment = "# Where these records were made, and when this file was. A copy is known by it.\n"

  static func check(_ path: String) -> Finding {
    guard let file = try? Descriptor(open: path, O_RDONLY | O_NOFOLLOW) else { return .missing }
    guard let bytes = try? file.readAll(limit: 4096),
      let line = String(decoding: bytes, as: UTF8.self).split(separator: "\n").last,
      case let parts = line.split(separator: " "), parts.count == 2
    else { return .copy }
    guard parts[0] == machine else { return .ofAnotherMachine }
    // Some file systems know no times of birth; then nothing can be said.
    guard let birth = file.birth, let noted = UInt64(parts[1]), noted > 0 else { return .same }
    return birth == noted ? .same : .copy
  }

  static func write(to path: String) throws(SystemError) {
    try PosixFile.writeAtomically(to: path) { file in
      Array("\(comment)\(machine) \(file.birth ?? 0)\n".utf8)
    }
  }

  /// This machine's number; "-" where it has none, as in containers.
  private static var machine: String {
    let text = PosixFile.text("/etc/machine-id", limit: 64) ?? ""
    let id = text.prefix { $0.isHexDigit }
    return id.isEmpty ? "-" : String(id)
  }
}
