import Dataplane
import Host
import PacketIO

extension GatewayPlan {
  /// Where peers with whom keys are agreed upon find this gateway, as far as it knows: addresses that datagrams to them
  /// leave from, with its port. What is behind an address translator may know a wrong one.
  ///
  /// Others of this machine's addresses are nobody's business: a LAN's, for one.
  func locators() -> [Endpoint] {
    var found: Set<IPAddress> = []
    for peer in peers where peer.keys != nil {
      for path in peer.configuration.paths where path.path.transport == TransportPlace.datagrams {
        guard let address = LocalAddress.toward(path.path.endpoint), listen.address.map({ $0 == address }) ?? true
        else { continue }
        found.insert(address)
      }
    }
    // They lead into the tunnel.
    let inner = Set(interface.addresses.map(\.address))
    return found.subtracting(inner).sorted().map { Endpoint(address: $0, port: listen.port) }
  }
}
