/// A change of what a dataplane does, for one peer or for what concerns all of them. One for a peer costs what that peer
/// costs, however many others there are.
///
/// A list of changes takes effect as a whole, between two packets of each worker. What it comes to is validated like a
/// configuration: two peers may swap a prefix in one list, in whichever order.
public enum ConfigurationChange: Sendable, Equatable {
  /// A peer with a new name, behind all others.
  case add(PeerConfiguration)
  /// The peer of that name goes; its keys are zeroed.
  case remove(peer: String)
  /// The peer of the same name becomes this. Associations that stay the same go on, with their sequence numbers and
  /// windows; so does what was learned of its paths, where the list of paths stays.
  case replace(PeerConfiguration)
  /// Packets from the peer are accepted under this association too, in place of one with its SPI.
  case installInbound(SecurityAssociationConfiguration, peer: String)
  /// Packets to the peer are sealed under this association from now on; nil: they are dropped. With several workers each
  /// has one of its own: `workers`, as `PeerConfiguration.workerOutbound`; empty: worker 0 seals for all.
  case installOutbound(
    SecurityAssociationConfiguration?, workers: [SecurityAssociationConfiguration] = [], peer: String)
  /// Nothing is accepted from the peer under this SPI any more.
  case retireInbound(spi: UInt32, peer: String)
  /// What was negotiated with the peer about addresses is this now.
  case agree(AddressAgreement, peer: String)
  /// Addresses, routes and MTU of the device. It costs the more, the more of them there are.
  case interface(InterfaceConfiguration)
  /// All rules. They are compiled anew, and flows are judged by them when their next packet comes.
  case firewall(FirewallConfiguration)
}
