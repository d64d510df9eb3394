import ArgumentParser
import Dataplane
import Lab
import PacketIO
import Transports

/// `vpnbench null-gateway`: the real dataplane with its cryptography left out, one end of it.
///
/// It shows what the path costs without the seal. It exists here only: no gateway can be configured to it.
struct NullGatewayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "null-gateway", abstract: "One end of a tunnel that seals nothing: a bound, never a VPN.",
    shouldDisplay: false)

  @Option(help: "Name of the TUN device.") var interface: String
  @Option(help: "Its address, with prefix length.") var address: String
  @Option(help: "The other end's address inside.") var peer: String
  @Option(help: "Where the other end takes packets, ADDRESS:PORT; the port is also ours.") var endpoint: String
  @Option(help: "SPI of what we send.") var sendSPI: UInt32
  @Option(help: "SPI of what we take.") var receiveSPI: UInt32
  @Option(help: "Bytes of the largest packet inside.") var mtu = 1400

  func run() throws {
    guard let prefix = Prefix(address), let own = IPAddress(String(address.prefix { $0 != "/" })),
      let far = Prefix(peer), let endpoint = Endpoint(endpoint, defaultPort: 4500)
    else { throw ValidationError("an address cannot be read") }
    let cipher = Cipher.aes128GCM
    // No key is used, but lengths are checked, and one key may not serve both directions.
    func association(_ spi: UInt32) -> SecurityAssociationConfiguration {
      let key = [UInt8](repeating: UInt8(truncatingIfNeeded: spi), count: cipher.keyMaterialLength)
      return SecurityAssociationConfiguration(spi: spi, cipher: cipher, key: KeyMaterial(key))
    }
    let configuration = Configuration(
      interface: InterfaceConfiguration(
        source: .name(interface), addresses: [InterfaceAddress(own, prefixLength: prefix.length)], mtu: mtu),
      peers: [
        PeerConfiguration(
          name: "peer", prefixes: [far], path: Path(endpoint: endpoint), inbound: [association(receiveSPI)],
          outbound: association(sendSPI))
      ])
    var options = Dataplane.Options()
    options.sealingLeftOut = true
    let dataplane = try Dataplane(configuration, transports: [UDPTransport(port: endpoint.port)], options: options)
    withExtendedLifetime(dataplane) {
      // The signal that ends the process also closes the device.
      while true { pause(seconds: 3600) }
    }
  }
}
