import Foundation
import Testing

/// The models of the handshake and of rekeys hold what their pages promise, and would be seen to fail: every rule that
/// a model's table names is switched off in turn, and each property that the table names for it then breaks.
@Suite(.serialized) struct ModelTests {
  private static let tools = ["spin", "cc", "timeout"]
  private static let missing = tools.filter { tool in
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    return !path.split(separator: ":").contains { FileManager.default.isExecutableFile(atPath: "\($0)/\(tool)") }
  }

  @Test(
    .timeLimit(.minutes(20)), .enabled(if: missing.isEmpty, "needs \(missing.joined(separator: " and "))"),
    arguments: ["handshake", "rekey"])
  func everyPropertyHoldsAndEveryRuleIsNeeded(name: String) async throws {
    let model = try Model(name)
    #expect(model.rules.count > 8 && model.properties.count == 4 && model.whole.count == 2)
    #expect(model.rules.map(\.name).sorted() == model.switches.sorted(), "the table and the switches differ")
    let named = Set(model.rules.flatMap(\.breaks))
    #expect(named.sorted() == model.properties.sorted(), "a property that no rule breaks, or the reverse")

    let folder = FileManager.default.temporaryDirectory.appending(path: "culvert-models-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }

    var checks = [Check(model: model, properties: model.whole)]
    if name == "handshake" { checks.append(Check(model: model, properties: model.whole, bounds: Self.passing)) }
    checks += model.rules.map { rule in
      // A restart loses the DH key too. The #I alone is seen to count where only time passes.
      Check(
        model: model, properties: rule.breaks, off: rule.name, bounds: rule.name == "LIVING" ? Self.passing : [])
    }
    // Two at a time: each may take `Check.mebibytes`.
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (number, check) in checks.enumerated() {
        if number >= 2 { try await group.next() }
        let place = folder.appending(path: "\(number)")
        group.addTask { try await check.run(in: place) }
      }
      try await group.waitForAll()
    }
  }

  /// Generations pass, and nobody restarts.
  private static let passing = ["RESTARTS=0", "PASSES=1"]
}

/// A file of `Tests/Models`, and what its opening says of itself.
private struct Model {
  struct Rule {
    let name: String
    let breaks: [String]
  }

  let name: String
  let path: String
  let rules: [Rule]
  /// Macros that are 1 unless they are given.
  let switches: [String]
  let properties: [String]
  /// What a search with all rules on looks for: that which must never be, at once, and that which must come.
  let whole: [String]

  init(_ name: String) throws {
    self.name = name
    path = Checkout.root.appending(path: "Tests/Models/\(name).pml").path
    let text = try Checkout.text("Tests/Models/\(name).pml")
    rules = text.matches(of: /(?m)^   ([A-Z][A-Z0-9_]*) +[0-9] .* {2,}([a-z]+(?:, [a-z]+)*)$/).map { row in
      Rule(name: String(row.1), breaks: row.2.split(separator: ", ").map(String.init))
    }
    switches = text.matches(of: /(?m)^#ifndef ([A-Z0-9_]+)\n#define ([A-Z0-9_]+) 1$/).map { String($0.1) }
    let claims = text.matches(of: /(?m)^ltl ([a-z]+) \{ (<>)?/).map { (name: String($0.1), mustCome: $0.2 != nil) }
    properties = claims.map(\.name).filter { $0 != "safe" }
    whole = claims.filter { $0.name == "safe" || $0.mustCome }.map(\.name)
  }
}

/// One way to build a model, and the properties that are looked at in it.
private struct Check {
  /// Of one search. Nearly twice what the largest takes.
  static let mebibytes = 800

  let model: Model
  let properties: [String]
  /// The rule that is switched off: then each property breaks.
  var off: String?
  var bounds: [String] = []

  func run(in folder: URL) async throws {
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let macros = (bounds + (off.map { ["\($0)=0"] } ?? [])).map { "-D\($0)" }
    try await call(["spin", "-a"] + macros + [model.path], in: folder)
    // What breaks is found among few states, so that compiling would take longest.
    let level = off == nil ? "-O2" : "-O0"
    try await call(["cc", level, "-w", "-DMEMLIM=\(Self.mebibytes)", "-o", "pan", "pan.c"], in: folder)
    for property in properties {
      let start = ContinuousClock.now
      let output = try await call(["./pan", "-a", "-n", "-m100000", "-N", property], in: folder)
      let what = "\(property) of \(model.name), \(off.map { "without \($0)" } ?? "all rules on") \(bounds)"
      // A search that was cut short by its depth or its memory has shown nothing.
      let isWhole = !output.contains("error: max search depth") && !output.contains("out of memory")
      let errors = output.firstMatch(of: /errors: (\d+)/).flatMap { Int($0.1) }
      if off == nil {
        #expect(errors == 0 && isWhole, "\(what): \(output)")
        let states = output.firstMatch(of: /([0-9.e+]+) states, stored/).map { String($0.1) } ?? "?"
        print("\(what): \(states) states in \(ContinuousClock.now - start)")
      } else {
        let isFound = output.contains(/pan:1: (assertion violated|acceptance cycle|end state in claim)/)
        #expect(errors == 1 && isFound, "\(what) should break: \(output)")
      }
    }
  }

  @discardableResult private func call(_ arguments: [String], in folder: URL) async throws -> String {
    let result = try await Command(["-C", folder.path, "timeout", "600"] + arguments).run()
    try #require(result.status == 0, "\(arguments.joined(separator: " ")): \(result.output)")
    return result.output
  }
}
