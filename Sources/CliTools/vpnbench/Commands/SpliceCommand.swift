import ArgumentParser
import Dataplane
import Glibc
import Lab
import PacketIO

/// `vpnbench splice`: the TUN-to-TUN bound, as a process of its own so that its processor time can be told apart.
struct SpliceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "splice", abstract: "Copies packets between a TUN device here and one in another namespace.",
    shouldDisplay: false)

  @Option(help: "Name of both devices.") var interface: String
  @Option(help: "Address and prefix length of the device here.") var here: String
  @Option(help: "Address and prefix length of the device there.") var there: String
  @Option(help: "The other namespace.") var peerNamespace: String
  @Option(help: "Bytes of the largest packet.") var mtu = 1400

  /// Leaves the thread that opened it; from then on only the descriptor is used.
  private struct Device: @unchecked Sendable { let tun: TunDevice }

  func run() throws {
    let other = try Namespace(borrowing: peerNamespace)
    let (interface, mtu, there) = (interface, mtu, there)
    let near = Device(tun: try SpliceCommand.open(interface, here, mtu))
    let far = try other.inside { Device(tun: try SpliceCommand.open(interface, there, mtu)) }
    let back = LabThread(name: "splice") { PacketCopy.run(from: far.tun.queues[0], to: near.tun.queues[0]) }
    _ = PacketCopy.run(from: near.tun.queues[0], to: far.tun.queues[0])
    _ = try back.join()
    near.tun.close()
    far.tun.close()
  }

  private static func open(_ name: String, _ address: String, _ mtu: Int) throws -> TunDevice {
    guard let prefix = Prefix(address), let own = IPAddress(String(address.prefix { $0 != "/" })) else {
      throw LabError("\(address) is not an address with a prefix length")
    }
    return try TunDevice(
      InterfaceConfiguration(
        source: .name(name), addresses: [InterfaceAddress(own, prefixLength: prefix.length)], mtu: mtu))
  }
}
