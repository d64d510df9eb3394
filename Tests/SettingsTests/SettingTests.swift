import Foundation
import Testing

@testable import Settings

/// YAML as settings files may use it.
@Suite struct SettingTests {
  private static func problem(_ text: String) -> FileProblem? {
    do {
      _ = try Setting(parsing: text, file: "x.yaml")
      return nil
    } catch {
      return error
    }
  }

  /// The text of a setting's only element; for a table, of its first value.
  private static func value(_ text: String) throws -> String? {
    guard case .table(let entries) = try Setting(parsing: text, file: "x.yaml").value,
      case .scalar(let text)? = entries.first?.setting.value
    else { return nil }
    return text
  }

  /// Nine levels of nine aliases each: expanded, 387 million elements.
  static let laughs =
    "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + (1...9).map { level in
      "a\(level): &a\(level) [\((0..<9).map { _ in "*a\(level - 1)" }.joined(separator: ", "))]\n"
    }.joined()

  @Test(arguments: [
    ("nested sequences", laughs, 1),
    ("nested mappings", "a: &a {x: 1}\nb: &b {x: *a, y: *a}\nc: {x: *b, y: *b}\n", 1),
    ("in a key", "b: 1\n" + laughs + "? *a9\n: 1\n", 12),
    ("an anchor alone", "name: x\nlist:\n  - &one 1\n", 3),
    ("on a key", "name: x\n&k key: 1\n", 2),
    ("an alias alone", "name: x\nother: *one\n", 2),
    ("merged", "base: &base {a: 1}\nother: {<<: *base}\n", 1),
    ("in brackets", "list: [1,&a 2]\n", 1),
    ("behind a colon in brackets", "list: {\"a\":&a 2}\n", 1),
    ("behind a tag", "list: !!str &a x\n", 1),
    ("of itself", "list: &a [*a]\n", 1),
    ("on the line before", "list: &a\n  - 1\n", 1),
    ("after another kind of line end", "# x\rlist: &a [1]\r", 2),
    ("with the character that stands for it", "other: \"\u{E000}\"\nlist: &a 1\n", 2),
  ]) func anchorsAndAliasesAreRefused(name: String, text: String, line: Int) {
    let before = peakMemory()
    let problem = Self.problem(text)
    #expect(problem?.problem == "anchors and aliases ('&' and '*') are not supported", "\(name): \(problem as Any)")
    #expect(problem?.line == line, "\(name)")
    // Expanded, the nested ones are gigabytes.
    #expect(peakMemory() - before < 256 << 20, "\(name)")
  }

  @Test(arguments: [
    ("a: R&D", "R&D"), ("a: x &y", "x &y"), ("a: \"&b\"", "&b"), ("a: '&b *c'", "&b *c"), ("a: b # &c", "b"),
    ("# &c\na: b", "b"), ("a: |\n  &b\n  c", "&b\nc"), ("a: \"\u{E000}&b\"", "\u{E000}&b"),
    ("a: x\n  &y", "x &y"), ("a: b&", "b&"),
  ]) func ampersandsElsewhereAreText(text: String, value: String) throws {
    #expect(try Self.value(text) == value)
  }

  /// The most memory that this process has held so far.
  private func peakMemory() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return line.flatMap { Int($0.split(separator: " ").dropLast().last ?? "") }.map { $0 << 10 } ?? 0
  }

  @Test func aMarkOfByteOrderIsNoSetting() throws {
    #expect(try Self.value("\u{FEFF}name: alpha\n") == "alpha")
    #expect(Self.problem("\u{FEFF}name: alpha\nlist: [\n")?.line == 3)
  }

  @Test func renamedSettingsNameTheirNewNames() {
    let problems = ProblemList(file: "x.yaml")
    let root = try? Setting(parsing: "roads: 1\n", file: "x.yaml")
    guard let root else { return }
    let reader = SettingReader(
      root, line: 1, place: "", known: ["paths"], renamed: ["roads": "paths"], problems: problems)
    reader.reportMissing("paths", "write them")
    #expect(problems.problems.map(\.description) == ["x.yaml:1: 'roads' has another name now; write 'paths' instead"])
  }

  /// Whoever can write it has the program do what he likes.
  @Test func filesThatOthersCanWriteAreRefused() throws {
    let path = NSTemporaryDirectory() + "culvert-settings-\(UUID().uuidString).yaml"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Data("name: a\n".utf8).write(to: URL(fileURLWithPath: path))
    func read(mode: Int) throws -> FileProblem? {
      try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
      do throws(FileProblem) {
        _ = try Setting(contentsOf: path, remedy: "", firstSetting: "")
        return nil
      } catch {
        return error
      }
    }
    for mode in [0o600, 0o640, 0o644] { #expect(try read(mode: mode) == nil) }
    for mode in [0o620, 0o602, 0o666] {
      let problem = try read(mode: mode)
      #expect(problem?.problem == "can be written by others" && problem?.remedy == "chmod go-w \(path)")
    }
  }
}
