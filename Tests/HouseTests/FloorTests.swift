import Foundation
import Testing

/// A tree that one can walk through: no type larger than it claims, no folders that need each other, no target that
/// uses what it does not declare.
@Suite struct FloorTests {
  /// The folders of Sources that are a target each.
  static let targets: [String] = {
    let folders = { (path: String) in
      (try? FileManager.default.contentsOfDirectory(atPath: Checkout.root.appending(path: path).path).sorted()) ?? []
    }
    return folders("Sources").filter { !$0.hasPrefix("C") }.map { "Sources/\($0)" }
      + folders("Sources/CliTools").map { "Sources/CliTools/\($0)" }
  }()

  static let mostLines = 600
  static let mostStored = 20
  /// Types that are larger, with the reason.
  static let largeTypes = [
    "TCPFigures": "counters, one noun each, that are read and never decided upon",
    "Statistics": "figures, as an embedder reads them",
  ]

  @Test(arguments: targets) func typesAreAsSmallAsTheyClaim(target: String) throws {
    let declarations = Declarations(try Checkout.swiftFiles(target), below: target)
    #expect(!declarations.sizes.isEmpty)
    for (name, size) in declarations.sizes where Self.largeTypes[name] == nil {
      #expect(size.lines <= Self.mostLines, "\(name) has \(size.lines) lines in \(size.files.count) files")
      #expect(size.stored <= Self.mostStored, "\(name) has \(size.stored) stored properties")
    }
  }

  @Test func exceptionsAreStillNeeded() throws {
    var sizes: [String: Declarations.TypeSize] = [:]
    for target in Self.targets {
      sizes.merge(Declarations(try Checkout.swiftFiles(target), below: target).sizes) { $0.lines > $1.lines ? $0 : $1 }
    }
    for name in Self.largeTypes.keys {
      let size = try #require(sizes[name], "\(name) is an exception, and is not there")
      #expect(size.lines > Self.mostLines || size.stored > Self.mostStored, "\(name) is no exception any more")
    }
  }

  @Test(arguments: targets) func foldersFormNoCircle(target: String) throws {
    #expect(Declarations.circles(try Checkout.swiftFiles(target), below: target) == [])
  }

  /// What encrypts a stream goes between its bytes and its records: in the one file where streams are read and written.
  @Test func streamsAreReadAndWrittenInOnePlace() throws {
    let seam = "Sources/Transports/Streams/StreamBytes.swift"
    // What a web server of this machine gets is no stream of the table's, and in the clear.
    let plain = "Sources/Transports/Web/UnixStream.swift"
    let calls = ["TCPSocket.receive(", "TCPSocket.send(", "receiveMultishot(", ".connect(", "culvert_splice("]
    let files = try Checkout.swiftFiles("Sources/Transports") + Checkout.swiftFiles("Sources/Relay")
    for file in files where file.path != seam && file.path != plain {
      for call in calls {
        #expect(!file.code.contains { $0.contains(call) }, "\(file.path) has \(call)…); \(seam) is the place for it")
      }
    }
    let own = try #require(files.first { $0.path == seam })
    for call in calls { #expect(own.code.contains { $0.contains(call) }, "\(seam) has no \(call)…)") }
  }

  /// What the manifest says of each target is what its files import, of the project's own modules and of packages.
  @Test func targetsDeclareWhatTheyImportAndNothingElse() async throws {
    let manifest = try await Manifest.read()
    #expect(manifest.targets.count > 10)
    for target in manifest.targets where !target.isSystem {
      let imports = Set(try Checkout.swiftFiles(target.path).flatMap(\.imports)).intersection(manifest.names)
      let undeclared = imports.subtracting(target.dependencies).sorted()
      #expect(undeclared == [], "\(target.name) imports what it does not declare")
      let unused = target.dependencies.subtracting(imports).sorted()
      #expect(unused == [], "\(target.name) declares what it does not import")
    }
  }

  // MARK: The reader of declarations

  @Test func typesAreCountedOverTheirExtensions() {
    let a = SourceFile(
      path: "T/One/A.swift",
      text: """
        public struct A {
          private let x = 1
          var y: Int { 3 }
          var z: Int {
            4
          }
          package private(set) var w = 0 { didSet { f() } }
          static let s = B()
        }
        """)
    let b = SourceFile(path: "T/Two/B.swift", text: "struct B {}\nextension A {\n  func g() { let h = 1 }\n}\n")
    let declarations = Declarations([a, b], below: "T")
    #expect(declarations.sizes["A"]?.lines == 12 && declarations.sizes["A"]?.stored == 2)
    #expect(declarations.sizes["A"]?.files.count == 2)
    #expect(declarations.folders == ["A": "One", "B": "Two"])
    // B is used by A's folder, and A is extended in B's.
    #expect(Declarations.circles([a, b], below: "T") == [["One", "Two"]])
    let alone = SourceFile(path: "T/Two/B.swift", text: "struct B {}\n")
    #expect(Declarations.circles([a, alone], below: "T") == [])
  }
}
