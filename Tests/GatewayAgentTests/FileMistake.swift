import Foundation
import Settings
import Testing

@testable import Gateway

/// What makes a file wrong, and what is said of it: one problem on its line, with what to do about it.
struct FileMistake: Sendable, CustomTestStringConvertible {
  let testDescription: String
  /// Made of the good file.
  let text: @Sendable (String) -> String
  /// Nil: on any line; nil inside: on none.
  private let line: Int??
  private let problem: String
  private let remedy: String

  init(
    _ name: String, line: Int?, _ problem: String, _ remedy: String, _ text: @escaping @Sendable (String) -> String
  ) {
    testDescription = name
    (self.line, self.problem, self.remedy, self.text) = (.some(line), problem, remedy, text)
  }

  /// One text of the good file replaced.
  init(_ old: String, _ new: String, line: Int?, _ problem: String, _ remedy: String) {
    self.init("\(old) → \(new)", line: line, problem, remedy) { good in
      precondition(good.contains(old), "the good file has no '\(old)'")
      return good.replacing(old, with: new, maxReplacements: 1)
    }
  }

  /// A file with one peer, with these settings of its own and these in front.
  init(peer: String = "address: 192.0.2.2", top: String = "", problem: String, remedy: String) {
    testDescription = problem
    (line, self.problem, self.remedy) = (nil, problem, remedy)
    text = { _ in Workshop.onePeer(peer, top: top) }
  }

  /// - Parameter isWhole: false: the problem has more to say, by another program's words.
  func expect(
    in workshop: Workshop, good: String = Workshop.good, isWhole: Bool = true,
    sourceLocation: SourceLocation = #_sourceLocation, parse: ((String) throws -> Void)? = nil
  ) {
    let text = text(good)
    let error = #expect(throws: FileProblems.self, sourceLocation: sourceLocation) {
      if let parse { try parse(text) } else { _ = try workshop.parse(text) }
    }
    let problems = error?.problems ?? []
    #expect(problems.count == 1, "\(problems)", sourceLocation: sourceLocation)
    guard let first = problems.first else { return }
    #expect(line.map { first.line == $0 } ?? (first.line != nil), "\(first)", sourceLocation: sourceLocation)
    let said = first.problem.replacing(workshop.path, with: "")
    #expect(isWhole ? said == problem : said.hasPrefix(problem), "\(said)", sourceLocation: sourceLocation)
    let advice = first.remedy.replacing(workshop.path, with: "")
    #expect(!advice.isEmpty && advice.contains(remedy), "\(advice)", sourceLocation: sourceLocation)
    #expect(!first.description.contains("\n"), sourceLocation: sourceLocation)
    guard parse == nil else { return }
    let place = workshop.file("alpha.yaml") + ":" + (first.line.map { "\($0):" } ?? "")
    #expect(first.description.hasPrefix(place + " "), "\(first)", sourceLocation: sourceLocation)
  }
}
