import Glibc

/// A refusal with what to do about it: one line that an operator can act on.
public struct OperatorError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What is wrong, without what to do about it.
  public let problem: String
  /// What the operator can do.
  public let remedy: String

  public init(_ problem: String, remedy: String) {
    self.problem = problem
    self.remedy = remedy
  }

  public var description: String { "\(problem); \(remedy)" }
}

extension FileStatus {
  /// Why a file or directory is not to be relied upon: it is not this user's or root's, or others can write to it. Nil:
  /// nothing is wrong. Ask it of an opened file, so that nobody changes it in between.
  package func objection(to path: String) -> OperatorError? {
    guard owner == 0 || owner == geteuid() else {
      return OperatorError("\(path) belongs to user \(owner)", remedy: "chown it to user \(geteuid()), who runs this")
    }
    return mode & 0o022 == 0 ? nil : OperatorError("others can write to \(path)", remedy: "chmod go-w \(path)")
  }
}
