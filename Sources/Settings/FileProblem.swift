/// What is wrong on one line of a file.
public struct FileProblem: Error, Sendable, Equatable, CustomStringConvertible {
  /// The file's name as the operator gave it.
  public let file: String
  /// From 1; nil where the problem is the file as a whole.
  public let line: Int?
  /// What is wrong, without what to do about it.
  public let problem: String
  /// What the operator can do.
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

  /// In the order of their lines.
  public let problems: [FileProblem]

  package init(_ problems: [FileProblem]) { self.problems = problems }

  /// One line for each of the first problems, and one that counts the rest.
  public var description: String {
    var lines = problems.prefix(FileProblems.shown).map(\.description)
    let more = problems.count - lines.count
    if more > 0 { lines.append("and \(more) more") }
    return lines.joined(separator: "\n")
  }
}

/// All problems of one file, collected while it is read, so that one look shows more than the first.
package final class ProblemList {
  /// The file's name as the operator gave it.
  package let file: String
  /// In the order in which they were found.
  package private(set) var problems: [FileProblem] = []

  /// For the file that problems are reported under.
  package init(file: String) { self.file = file }

  /// Notes what is wrong on a line.
  package func add(_ line: Int, _ problem: String, _ remedy: String) {
    problems.append(FileProblem(file: file, line: line, problem: problem, remedy: remedy))
  }

  /// - Throws: all of them, in the order of their lines.
  package func throwIfAny() throws(FileProblems) {
    guard !problems.isEmpty else { return }
    let ordered = problems.enumerated().sorted { ($0.element.line ?? 0, $0.offset) < ($1.element.line ?? 0, $1.offset) }
    throw FileProblems(ordered.map(\.element))
  }
}
