import Foundation
import Gateway
import Testing

/// What the README shows works. Its program has a test of its own; see `EmbedderTests`.
@Suite struct ReadmeTests {
  @Test(arguments: ["oslo.yaml", "alike.yaml"]) func gatewayFileIsAccepted(name: String) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "culvert-readme-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let text = try #require(try Readme.markedFiles("yaml")[name])
    let path = folder.appending(path: name).path
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    try KeyFile.create(.secret, at: folder.appending(path: "bergen.secret").path)
    _ = try IdentityFile.create(.p256, at: folder.appending(path: "oslo.key").path)
    let file = try GatewayFile(path).plan()
    #expect(file.name == "oslo")
    #expect(file.peers.map(\.configuration.name) == ["bergen"])
    let rules = try #require(try Readme.markedFiles("yaml")["rules.yaml"])
    let ruled = try GatewayFile.plan(text: rules, path: path)
    #expect(ruled.firewall.rules.count == 2 && ruled.sharing?.services.count == 1)
  }
}

enum Readme {
  /// The code blocks in `language` that follow a line `<!-- file: PATH -->`, by path.
  static func markedFiles(_ language: String) throws -> [String: String] {
    let block = try Regex(
      #"<!-- file: (\S+) -->\n+```\#(language)\n((?s:.*?))```"#, as: (Substring, Substring, Substring).self)
    var files: [String: String] = [:]
    for match in try Checkout.text("README.md").matches(of: block) { files[String(match.1)] = String(match.2) }
    return files
  }
}
