import Foundation
import Identity
import Testing

/// The complete program in README.md, as a package of its own: what an embedder types, compiled and run.
///
///     namespace 1                     namespace 2
///     embedder 1, 10.77.0.1           embedder 2, 10.77.0.2
///     192.0.2.1 ─────────veth──────── 192.0.2.2
@Suite(.serialized) struct EmbedderTests {
  /// Kept between runs, so that only what changed is compiled again.
  static let folder = Checkout.root.appending(path: ".build-embedder")
  static let program = folder.appending(path: "build/debug/embedder").path

  @Test(.timeLimit(.minutes(15))) func readmeProgramCompilesWithoutWarningsAndCarriesPings() async throws {
    let package = Self.folder.appending(path: "package")
    let files = try Readme.markedFiles("swift")
    #expect(files.keys.sorted() == ["Package.swift", "Sources/embedder/main.swift"])
    for (path, text) in files {
      let place = package.appending(path: path)
      try FileManager.default.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
      // The README's reader has the two packages side by side; here one lies inside the other.
      let adapted = text.replacing("path: \"../culvert\"", with: "path: \"\(Checkout.root.path)\"")
      if (try? String(contentsOf: place, encoding: .utf8)) != adapted {
        try adapted.write(to: place, atomically: true, encoding: .utf8)
      }
    }
    // A plan from an earlier run would not know of folders that are new in our modules.
    try? FileManager.default.removeItem(at: Self.folder.appending(path: "build/debug.yaml"))
    let build = try await Command(
      ["swift", "build", "--package-path", package.path, "--scratch-path", "\(Self.folder.path)/build"],
      environment: ["CULVERT_WARNINGS": "error"]
    ).run()
    let errors = build.output.split(separator: "\n").filter { $0.contains("error:") }.prefix(5)
    try #require(build.status == 0, "\(errors.joined(separator: "\n"))")
    // Warnings of our modules were errors; here is the program's own chance.
    let warnings = build.output.split(separator: "\n").filter { $0.contains("main.swift") && $0.contains("warning:") }
    #expect(warnings.isEmpty)

    guard geteuid() == 0, access("/dev/net/tun", R_OK | W_OK) == 0 else {
      print("SKIPPED: running the README's program needs root and /dev/net/tun; it was only compiled")
      return
    }
    try await run()
  }

  /// What a package resolves that depends on this one for a library: this one, and nothing that only programs need.
  @Test(.timeLimit(.minutes(5)), arguments: ["PacketIO", "Dataplane", "Transports", "KeyAgreement"])
  func anEmbedderResolvesNoOtherPackage(product: String) async throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "culvert-resolve-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    let files = [
      "Package.swift": """
      // swift-tools-version: 6.2
      import PackageDescription
      let package = Package(
        name: "embedder",
        dependencies: [.package(name: "culvert", path: "\(Checkout.root.path)")],
        targets: [
          .executableTarget(name: "embedder", dependencies: [.product(name: "\(product)", package: "culvert")])
        ])
      """,
      "Sources/embedder/main.swift": "print()",
    ]
    for (name, text) in files {
      let place = folder.appending(path: name)
      try FileManager.default.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
      try text.write(to: place, atomically: true, encoding: .utf8)
    }
    let shown = try await Command([
      "swift", "package", "--package-path", folder.path, "--scratch-path", folder.appending(path: "build").path,
      "show-dependencies", "--format", "json",
    ]).run()
    try #require(shown.status == 0, "\(shown.output)")
    let names = shown.output.matches(of: /"name": "([^"]+)"/).map { String($0.1) }
    #expect(names == ["embedder", "culvert"], "\(shown.output)")
    #expect(!FileManager.default.fileExists(atPath: folder.appending(path: "Package.resolved").path))
    let checkouts = folder.appending(path: "build/checkouts").path
    #expect((try? FileManager.default.contentsOfDirectory(atPath: checkouts)) ?? [] == [])
  }

  private func run() async throws {
    let names = ["house\(getpid())a", "house\(getpid())b"]
    defer { for name in names { Command(["ip", "netns", "del", name]).runBlocking() } }
    try await lay(names)
    let identities = [HostIdentity.generate(.p256), .generate(.ed25519)]
    for (number, identity) in identities.enumerated() {
      let pem = unsafe identity.pem().withBytes { unsafe Data($0) }
      try pem.write(to: Self.folder.appending(path: "\(number + 1).key"))
    }
    func program(_ number: Int) -> Command {
      let other = 3 - number
      return Command([
        "ip", "netns", "exec", names[number - 1], Self.program, "\(number)",
        Self.folder.appending(path: "\(number).key").path, "\(other)=\(identities[other - 1].tag)",
      ])
    }
    let unused = try await Command([Self.program]).run()
    #expect(unused.status == 1 && unused.output.hasPrefix("usage: "), "\(unused.output)")
    // Whoever has no right to make a device is told in one line.
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    let refused = try await Command(powerless + program(1).arguments.dropFirst(4)).run()
    #expect(refused.status == 1 && refused.output.split(separator: "\n").count == 1, "\(refused.output)")
    async let first = program(1).run()
    async let second = program(2).run()
    // Both gateways take a moment to start.
    var ping: (status: Int32, output: String) = (-1, "")
    for _ in 0..<40 where ping.status != 0 {
      ping = try await Command(["ip", "netns", "exec", names[0], "ping", "-c", "1", "-W", "1", "10.77.0.2"]).run()
      if ping.status != 0 { try await Task.sleep(for: .milliseconds(100)) }
    }
    if ping.status == 0 {
      ping = try await Command(
        ["ip", "netns", "exec", names[0], "ping", "-i", "0.2", "-c", "5", "-W", "1", "10.77.0.2"]
      ).run()
    }
    #expect(ping.status == 0 && ping.output.contains(" 0% packet loss"), "\(ping.output)")
    for end in try await [first, second] {
      #expect(end.status == 0, "\(end.output)")
      let delivered = end.output.firstMatch(of: /(\d+) packets delivered/).flatMap { Int($0.1) }
      #expect((delivered ?? 0) >= 5, "\(end.output)")
      #expect(end.output.contains("established"), "\(end.output)")
    }
  }

  /// Two namespaces with a veth pair between them, and nothing else.
  private func lay(_ names: [String]) async throws {
    var lines = names.map { "netns add \($0)" }
    lines.append("link add wire netns \(names[0]) type veth peer name wire netns \(names[1])")
    for (index, name) in names.enumerated() {
      lines.append("-n \(name) address add 192.0.2.\(index + 1)/24 dev wire")
      lines.append("-n \(name) link set lo up")
      lines.append("-n \(name) link set wire up")
    }
    for line in lines {
      let result = try await Command(["ip"] + line.split(separator: " ").map(String.init)).run()
      try #require(result.status == 0, "ip \(line): \(result.output)")
    }
  }
}
