import Foundation

/// Package.swift as SwiftPM understands it.
struct Manifest {
  struct Target {
    let name: String
    /// From the root of the checkout.
    let path: String
    /// Modules: other targets, and products of packages.
    let dependencies: Set<String>
    let isTest: Bool
    let isSystem: Bool
  }

  let targets: [Target]
  /// Modules that a target can depend on.
  var names: Set<String> {
    Set(targets.filter { !$0.isTest }.map { Self.module($0.name) }).union(targets.flatMap(\.dependencies))
  }

  /// How a target's module is called where it is imported.
  private static func module(_ target: String) -> String { target.replacing("-", with: "_") }

  static func read() async throws -> Manifest {
    let result = try await Command([
      "swift", "package", "--ignore-lock", "--package-path", Checkout.root.path, "dump-package",
    ]).run()
    // Warnings may stand in front.
    let text = result.output[(result.output.firstIndex(of: "{") ?? result.output.startIndex)...]
    return Manifest(try JSONDecoder().decode(Dump.self, from: Data(text.utf8)))
  }

  private init(_ dump: Dump) {
    targets = dump.targets.map { target in
      let folder = target.type == "test" ? "Tests" : "Sources"
      return Target(
        name: target.name, path: target.path ?? "\(folder)/\(target.name)",
        dependencies: Set(
          target.dependencies.compactMap { ($0.product ?? $0.byName ?? $0.target)?.first?.text }.map(Self.module)),
        isTest: target.type == "test", isSystem: target.type == "system")
    }
  }

  private struct Dump: Decodable {
    struct Dependency: Decodable {
      // Each is a list of a name and of what is nothing to us.
      var product: [Name]?
      var byName: [Name]?
      var target: [Name]?
    }
    struct Name: Decodable {
      var text: String?
      init(from decoder: any Decoder) { text = try? decoder.singleValueContainer().decode(String.self) }
    }
    struct Target: Decodable {
      var name: String
      var type: String
      var path: String?
      var dependencies: [Dependency]
    }
    var targets: [Target]
  }
}
