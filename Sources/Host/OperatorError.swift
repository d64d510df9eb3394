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
