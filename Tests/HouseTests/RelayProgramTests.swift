import Foundation
import Testing

/// A relay has no code that could open a packet, make a key or read a tunnel's device. What it links says so.
@Suite struct RelayProgramTests {
  /// The program, as it was built with these tests.
  private static let path: String = {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return URL(filePath: own).deletingLastPathComponent().appending(path: "culvert-relay").path
  }()

  private static func symbols(of path: String) throws -> [Substring] {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = ["nm", "-a", path]
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = Pipe()
    try process.run()
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return text.split(separator: "\n")
  }

  /// Swift's names of the modules' contents, and what they call of the cipher library. The one exception is TLS, which is
  /// libssl's (`SSL_`): it encrypts streams on their way, and what is in them stays sealed.
  private static let forbidden = [
    "$s9Dataplane", "$s7Gateway", "$s6Keying", "$s12KeyAgreement", "$s13KeyDerivation", "EVP_Encrypt", "EVP_Decrypt",
    "EVP_CipherInit", "EVP_KDF", "EVP_aes", "EVP_chacha20", "culvert_hkdf", "IMB_", "alloc_mb_mgr", "EVP_PKEY_derive",
    "culvert_agree",
  ]

  @Test func aRelayLinksNothingThatOpensPackets() throws {
    try #require(FileManager.default.fileExists(atPath: Self.path), "no culvert-relay at \(Self.path)")
    let symbols = try Self.symbols(of: Self.path)
    // It is the right program and the names are read: the proxy and its signatures are there.
    #expect(symbols.contains { $0.contains("$s5Relay") } && symbols.contains { $0.contains("EVP_DigestVerify") })
    for name in Self.forbidden {
      let found = symbols.filter { $0.contains(name) }
      #expect(found.isEmpty, "\(found.prefix(3))")
    }
    // And the same names are found where they are.
    let gateway = try Self.symbols(of: Self.path.replacing("culvert-relay", with: "culvert"))
    for name in [
      "$s9Dataplane", "$s7Gateway", "$s6Keying", "$s12KeyAgreement", "$s13KeyDerivation", "EVP_KDF", "EVP_PKEY_derive",
      "EVP_Encrypt",
    ] {
      #expect(gateway.contains { $0.contains(name) })
    }
  }
}
