import Foundation
import Testing

/// The module arrows of docs/ARCHITECTURE.md, read off the `import` lines.
@Suite struct ArrowTests {
  /// All that a module may import. Nothing below Gateway has Foundation; Dataplane and Transports do not know each
  /// other, so that a relay, which has no keys, cannot even link the code that would use them. Handshakes know neither
  /// sockets nor threads nor the kernel's clock. What programs share knows of no packets.
  static let arrows: [String: Set<String>] = [
    "PacketIO": ["CLiburing", "CLinux", "Glibc", "Synchronization"],
    "Dataplane": ["PacketIO", "CIPsecMB", "COpenSSL", "CLinux", "CVector", "Glibc", "Synchronization"],
    "Identity": ["PacketIO", "COpenSSL"],
    "KeyDerivation": ["PacketIO", "Identity", "COpenSSL"],
    "Keying": ["PacketIO", "Identity", "KeyDerivation"],
    "KeyAgreement": ["PacketIO", "Identity", "Keying", "Dataplane", "Glibc", "Synchronization"],
    "Transports": ["PacketIO", "COpenSSL", "CLibSSL", "CLinux", "Glibc", "Synchronization"],
    "Relay": ["PacketIO", "Identity", "Transports", "CLinux", "Glibc", "Synchronization"],
    "Host": ["PacketIO", "CLinux", "CVersion", "Dispatch", "Glibc", "Synchronization"],
    "Settings": ["Host", "PacketIO", "Yams", "Glibc"],
  ]

  @Test(arguments: arrows.keys.sorted()) func moduleImportsOnlyWhatItsArrowsAllow(module: String) throws {
    let files = try Checkout.swiftFiles("Sources/\(module)")
    #expect(!files.isEmpty)
    for file in files {
      let strangers = Set(file.imports).subtracting(Self.arrows[module]!)
      #expect(strangers.isEmpty, "\(file.path) imports \(strangers.sorted())")
    }
  }

  @Test func libraryTargetsDependOnlyOnWhatTheirArrowsAllow() throws {
    // What a target may link, it could import tomorrow.
    let manifest = try Checkout.text("Package.swift")
    for (module, allowed) in Self.arrows {
      let start = try #require(manifest.firstRange(of: try Regex(#"\.target\(\s*name: "\#(module)""#)))
      let target = manifest[start.lowerBound...].prefix { $0 != ")" }
      let names = target.matches(of: /"(\w+)"/).map { String($0.1) }.filter { $0 != module }
      #expect(Set(names).isSubset(of: allowed), "\(module) depends on \(names)")
    }
  }

  /// An embedder gets libraries; programs would bring the packages that only they need.
  @Test func noProgramIsADeclaredProduct() throws {
    #expect(!(try Checkout.text("Package.swift")).contains(".executable("))
  }

  /// The demonstration's namespaces and floods are in no gateway.
  @Test func gatewaysAndRelaysHaveNoLab() throws {
    for program in ["culvert", "culvert-relay"] {
      for file in try Checkout.swiftFiles("Sources/CliTools/\(program)") { #expect(!file.imports.contains("Lab")) }
    }
    for file in try Checkout.swiftFiles("Sources/Gateway") { #expect(!file.imports.contains("Lab")) }
  }

  @Test func importLinesAreReadInEveryForm() {
    let file = SourceFile(
      path: "x",
      text: """
        import A
        public import B
        @testable import C
        @preconcurrency package import D
        import struct E.Thing
        @_spi(Internals) import F
        // import G
        let text = "import H"
        """)
    #expect(file.imports == ["A", "B", "C", "D", "E", "F"])
  }
}
