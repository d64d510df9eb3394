import Dataplane
import Host

/// Keys in the form in which Wireshark's programs read them: lines of the file `esp_sa` in their configuration
/// directory.
public enum TsharkKeys {
  /// Writes such a file for its owner only. Replaces what was there.
  /// - Throws: `SystemError`.
  public static func write(_ lines: [String], to path: String) throws {
    try PosixFile.writeAtomically(Array((lines.joined(separator: "\n") + "\n").utf8), to: path)
  }

  /// Both directions of every peer. What tshark cannot open is named in a remark.
  /// - Parameter agreed: keys that were agreed upon and are in use, by peer.
  static func lines(_ plan: GatewayPlan, agreed: [String: [SecurityAssociationConfiguration]]) -> [String] {
    var lines = [
      "# Keys of the gateway \(plan.name): whoever has them reads its traffic.",
      "# Save as esp_sa where Wireshark keeps its settings, and set esp.enable_encryption_decode.",
    ]
    for peer in plan.peers {
      let configuration = peer.configuration
      for association in [configuration.outbound].compactMap({ $0 }) + configuration.inbound
        + (agreed[configuration.name] ?? [])
      {
        let spi = String(association.spi, radix: 16)
        let name = "\(configuration.name), SPI 0x\(spi)"
        guard association.cipher != .chacha20Poly1305, !association.implicitIV else {
          lines.append(
            "# \(name): tshark cannot decrypt \(association.cipher.rawValue)"
              + (association.implicitIV ? " with an implicit IV" : ""))
          continue
        }
        for family in ["IPv4", "IPv6"] {
          lines.append(
            "\"\(family)\",\"*\",\"*\",\"0x\(spi)\",\"AES-GCM with 16 octet ICV [RFC4106]\","
              + "\"0x\(association.key.hexadecimal)\",\"NULL\",\"\"")
        }
      }
    }
    return lines
  }
}
