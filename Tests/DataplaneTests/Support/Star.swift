import PacketIO

@testable import Dataplane

/// A gateway with many peers, each with a /32 of its own and one association in each direction.
struct Star {
  var peers: Int
  var firstSequence: UInt64 = 1
  var extended = true

  func outbound(_ peer: Int) -> SecurityAssociationConfiguration { association(peer, spi: 0x1000, key: 0) }
  func inbound(_ peer: Int) -> SecurityAssociationConfiguration { association(peer, spi: 0x2000, key: 1) }

  private func association(_ peer: Int, spi: UInt32, key: UInt8) -> SecurityAssociationConfiguration {
    let bytes = be32(UInt32(peer)) + [UInt8](repeating: key, count: 16)
    return SecurityAssociationConfiguration(
      spi: spi + UInt32(peer), cipher: .aes128GCM, key: KeyMaterial(bytes), extendedSequenceNumbers: extended,
      firstSequence: key == 0 ? firstSequence : 1)
  }

  static func address(_ peer: Int) -> String { "10.2.\(peer / 256).\(peer % 256)" }

  var configuration: Configuration {
    Configuration(
      interface: InterfaceConfiguration(source: .name("star")),
      peers: (0..<peers).map {
        PeerConfiguration(
          name: "peer-\($0)", prefixes: [Prefix(Star.address($0))!], path: .path($0), inbound: [inbound($0)],
          outbound: outbound($0))
      })
  }

  func packetTo(_ peer: Int) -> [UInt8] {
    PacketSketch("10.1.0.1", Star.address(peer), .other(50), payload: [1, 2]).bytes
  }

  /// As the peer seals it.
  func datagramFrom(_ peer: Int, sequence: UInt64) -> [UInt8] {
    SlowESP(inbound(peer)).seal(
      PacketSketch(Star.address(peer), "10.1.0.1", .other(50), payload: [3, 4]), sequence: sequence)
  }
}
