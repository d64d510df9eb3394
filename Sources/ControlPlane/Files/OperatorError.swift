/// A refusal with what to do about it: one line that an operator can act on.
public struct OperatorError: Error, Sendable, Equatable, CustomStringConvertible {
  public let problem: String
  public let remedy: String

  public init(_ problem: String, remedy: String) {
    self.problem = problem
    self.remedy = remedy
  }

  public var description: String { "\(problem); \(remedy)" }
}

/// What is wrong on one line of a file.
public struct FileProblem: Error, Sendable, Equatable, CustomStringConvertible {
  public let file: String
  /// From 1; nil where the problem is the file as a whole.
  public let line: Int?
  public let problem: String
  public let remedy: String

  public init(file: String, line: Int? = nil, problem: String, remedy: String) {
    self.file = file
    self.line = line
    self.problem = problem
    self.remedy = remedy
  }

  public var description: String { "\(file):\(line.map { "\($0):" } ?? "") \(problem); \(remedy)" }
}

/// All that is wrong with a file, in the order of its lines; never empty.
public struct FileProblems: Error, Sendable, Equatable, CustomStringConvertible {
  /// Problems that `description` shows.
  public static let shown = 5

  public let problems: [FileProblem]

  init(_ problems: [FileProblem]) { self.problems = problems }

  /// One line for each of the first problems, and one that counts the rest.
  public var description: String {
    var lines = problems.prefix(FileProblems.shown).map(\.description)
    let more = problems.count - lines.count
    if more > 0 { lines.append("and \(more) more") }
    return lines.joined(separator: "\n")
  }
}
