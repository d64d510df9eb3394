import Dataplane
import Foundation
import PacketIO
import Testing

/// The documents tell the truth about the tree.
@Suite struct DocumentationTests {
  @Test func everyDropReasonIsExplainedAndNoOther() throws {
    let rows = try Checkout.text("docs/DROP-REASONS.md").matches(of: /(?m)^\| `([a-z0-9-]+)` \|/).map { String($0.1) }
    #expect(rows.sorted() == DropReason.allCases.map(\.name).sorted())
  }

  /// Each with a test that there is.
  @Test func everySharedResourceIsExplainedAndNoOther() throws {
    let rows = try Checkout.text("docs/SHARES.md").matches(of: /(?m)^\| `([a-z0-9-]+)` \|.*\| `(\w+)\.(\w+)` \|$/)
    #expect(rows.map { String($0.1) }.sorted() == SharedResource.allCases.map(\.rawValue).sorted())
    let code = try Checkout.swiftFiles("Tests").map(\.code)
    for row in rows {
      #expect(
        code.contains { lines in
          lines.contains { $0.contains("struct \(row.2)") } && lines.contains { $0.contains("func \(row.3)(") }
        }, "\(row.2).\(row.3)")
    }
  }

  /// Folders, files and scripts that the documents name with a path exist.
  @Test(arguments: ["README.md", "docs/ARCHITECTURE.md", "docs/SHARES.md", "docs/HACKING.md", "CHANGELOG.md"])
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

  /// Every module of Sources is in the picture of modules.
  @Test func architectureNamesEveryModule() throws {
    let text = try Checkout.text("docs/ARCHITECTURE.md")
    let folders = try FileManager.default.contentsOfDirectory(atPath: Checkout.root.appending(path: "Sources").path)
    for folder in folders {
      #expect(text.contains(try Regex("(?m)^(?:.*  )?\(folder) ")) || text.contains("  \(folder)\n"), "\(folder)")
    }
  }

  /// The articles show programs that tests compile and run.
  @Test func articlesShowWhatIsTested() throws {
    let embedding = try Checkout.text("Sources/Dataplane/Dataplane.docc/Embedding.md")
    for (path, program) in try Readme.markedFiles("swift") {
      #expect(embedding.contains("```swift\n\(program)```"), "Embedding.md shows another \(path) than the README")
    }
    let writing = try Checkout.text("Sources/PacketIO/PacketIO.docc/WritingATransport.md")
    let sample = try Checkout.text("Tests/NetworkTests/Support/UnixTransport.swift")
    #expect(writing.contains("```swift\n\(sample)```"), "WritingATransport.md shows another transport")
  }

  /// A symbol that a catalogue names is declared in its module.
  @Test(arguments: ["PacketIO", "Dataplane", "Transports"]) func catalogueNamesExist(module: String) throws {
    let folder = "Sources/\(module)/\(module).docc"
    let code = try Checkout.swiftFiles("Sources/\(module)").flatMap(\.code)
    for name in try FileManager.default.contentsOfDirectory(atPath: Checkout.root.appending(path: folder).path) {
      let text = try Checkout.text("\(folder)/\(name)")
      for match in text.matches(of: /``(\w+)(?:\/(\w+))?``/) where match.1 != module || match.2 != nil {
        let symbol = String(match.2 ?? match.1)
        let declared = try Regex("public .*(?:struct|class|enum|protocol|typealias) \(symbol)\\b")
        #expect(code.contains { $0.contains(declared) }, "\(folder)/\(name) names \(symbol)")
      }
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
