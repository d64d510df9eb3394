import PacketIO

/// What a configuration says is this side's: no peer may send from there, unless it has a longer prefix.
struct OwnPrefixes: Sendable, Equatable {
  /// Whoever else names the same.
  private(set) var always: Set<Prefix> = []
  /// What is on-link at the device, where peers may have the same: they are behind it.
  private(set) var onLink: Set<Prefix> = []

  init() {}

  init(_ configuration: Configuration) {
    let addresses = configuration.interface.addresses
    always = Set(configuration.localPrefixes + configuration.ownPrefixes)
    always.formUnion(addresses.map { Prefix($0.address, length: $0.address.bitWidth) })
    onLink = Set(addresses.map { Prefix($0.address, length: $0.prefixLength) }).subtracting(always)
  }
}
