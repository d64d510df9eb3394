/// What is wrong, and what to do about it: one line.
struct RelayProblem: Error, CustomStringConvertible {
  let description: String

  init(_ problem: String, remedy: String) { description = "\(problem); \(remedy)" }
}
