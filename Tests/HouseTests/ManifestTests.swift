import Foundation
import Testing

/// Package.swift tells the truth: each target declares what it imports, and nothing else.
///
/// SwiftPM's own check (`--explicit-target-dependency-import-check`) finds only what is missing, and takes minutes.
@Suite struct ManifestTests {
  private struct Manifest: Decodable {
    var products: [Product]
    var targets: [Target]

    struct Product: Decodable { var name: String }
    struct Target: Decodable {
      var name: String
      var type: String
      var path: String?
      var dependencies: [Dependency]

      var folder: String { path ?? (type == "test" ? "Tests/\(name)" : "Sources/\(name)") }
    }
    struct Dependency: Decodable {
      var byName: [String?]?
      var product: [String?]?
      var target: [String?]?

      var module: String? { (byName ?? product ?? target)?.first ?? nil }
    }
  }

  private static func manifest() async throws -> Manifest {
    let scratch = FileManager.default.temporaryDirectory.appending(path: "culvert-manifest-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: scratch) }
    let dump = try await Command([
      "swift", "package", "--package-path", Checkout.root.path, "--scratch-path", scratch.path, "dump-package",
    ]).run()
    try #require(dump.status == 0, "\(dump.output)")
    let json = dump.output.drop { $0 != "{" }
    return try JSONDecoder().decode(Manifest.self, from: Data(json.utf8))
  }

  @Test func eachTargetDeclaresWhatItImportsAndNothingElse() async throws {
    let manifest = try await Self.manifest()
    let own = Set(manifest.targets.map(\.name))
    let foreign = Set(manifest.targets.flatMap(\.dependencies).compactMap(\.module)).subtracting(own)
    #expect(foreign == ["ArgumentParser", "Logging", "Yams"])
    for target in manifest.targets where target.type != "system" {
      let files = try Checkout.swiftFiles(target.folder)
      #expect(!files.isEmpty, "\(target.folder)")
      let imported = Set(files.flatMap(\.imports)).intersection(own.union(foreign))
      let declared = Set(target.dependencies.compactMap(\.module))
      #expect(imported.subtracting(declared).sorted() == [], "\(target.name) imports these without declaring them")
      let unused = declared.subtracting(imported)
      #expect(unused.sorted() == [], "\(target.name) declares these without importing them")
    }
  }

  /// An embedder gets libraries; programs would bring the packages that only they need.
  @Test func noProgramIsADeclaredProduct() async throws {
    let manifest = try await Self.manifest()
    let programs = Set(manifest.targets.filter { $0.type == "executable" }.map(\.name))
    #expect(programs.contains("culvert") && programs.isDisjoint(with: manifest.products.map(\.name)))
  }
}
