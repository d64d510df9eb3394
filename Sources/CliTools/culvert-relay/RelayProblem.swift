import Glibc

/// What is wrong, and what to do about it: one line.
struct RelayProblem: Error, CustomStringConvertible {
  let description: String

  init(_ problem: String, remedy: String) { description = "\(problem); \(remedy)" }

  /// The kernel's refusal.
  init(_ what: String, errno code: Int32) {
    let remedy =
      switch code {
      case ENOENT: "check the name in the relay's file"
      case EACCES, EPERM: "run as a user who may use it"
      case ENOSPC, EDQUOT: "free some space"
      default: "check the file system"
      }
    self.init("\(what): \(String(cString: strerror(code)))", remedy: remedy)
  }
}
