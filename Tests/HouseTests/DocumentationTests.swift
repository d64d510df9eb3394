import Dataplane
import Foundation
import Testing

/// The documents tell the truth about the tree.
@Suite struct DocumentationTests {
  @Test func everyDropReasonIsExplainedAndNoOther() throws {
    let rows = try Checkout.text("docs/DROP-REASONS.md").matches(of: /(?m)^\| `([a-z0-9-]+)` \|/).map { String($0.1) }
    #expect(rows.sorted() == DropReason.allCases.map(\.name).sorted())
  }

  /// Folders, files and scripts that the documents name with a path exist.
  @Test(arguments: ["README.md", "docs/ARCHITECTURE.md", "docs/HACKING.md", "CHANGELOG.md"])
  func namedFilesExist(document: String) throws {
    let text = try Checkout.text(document).replacing(/(?m)^```(?s:.*?)^```/, with: "")
    let named = text.matches(of: /`((?:Sources|Tests|Fuzz|Perf|docs|scripts|\.ci)\/[\w.+\/-]+)`/).map { String($0.1) }
    let linked = text.matches(of: /\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)/).map { String($0.1) }
    let folder = document.contains("/") ? "docs/" : ""
    for path in named + linked.map({ folder + $0 }) {
      let place = Checkout.root.appending(path: path).standardizedFileURL
      #expect(FileManager.default.fileExists(atPath: place.path), "\(document) names \(path), which is not there")
    }
  }

  @Test func namedSuitesExist() throws {
    let named = try Checkout.text("docs/ARCHITECTURE.md").matches(of: /`(\w+Tests)`/).map { String($0.1) }
    #expect(!named.isEmpty)
    let code = try Checkout.swiftFiles("Tests").flatMap(\.code)
    for suite in Set(named) {
      #expect(code.contains { $0.contains("struct \(suite)") }, "docs/ARCHITECTURE.md names \(suite)")
    }
  }

  @Test func fuzzTargetsHaveCorporaAndCorporaHaveTargets() throws {
    let list = try Checkout.text("Fuzz/Targets/FuzzTarget.swift")
    let targets = try Checkout.swiftFiles("Fuzz/Targets").flatMap { file in
      file.lines.compactMap { $0.firstMatch(of: /FuzzTarget\(name: "(\w+)"\)/).map { String($0.1) } }
    }
    for name in targets {
      #expect(list.lowercased().contains("  \(name.lowercased()),\n"), "\(name) is not in the list of targets")
    }
    let corpora = try FileManager.default.contentsOfDirectory(
      atPath: Checkout.root.appending(path: "Fuzz/Corpora").path)
    #expect(corpora.sorted() == targets.sorted())
  }
}
