import Foundation
import Lab
import PacketIO
import Transports

/// A certificate of its own signature, as an operator makes one.
package struct TestCertificate {
  /// PEM.
  package let chain: [UInt8]
  package let key: [UInt8]

  package init(name: String) throws {
    let directory = FileManager.default.temporaryDirectory.appending(path: "certificate-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let (chain, key) = (directory.appending(path: "chain.pem").path, directory.appending(path: "key.pem").path)
    _ = try Tool.run(
      "openssl",
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=\(name)", "-addext", "subjectAltName=DNS:\(name)", "-keyout", key, "-out", chain])
    self.chain = try Array(Data(contentsOf: URL(filePath: chain)))
    self.key = try Array(Data(contentsOf: URL(filePath: key)))
  }

  package var server: TLSCertificate { get throws { try TLSCertificate(chain: chain, key: KeyMaterial(key)) } }
}
