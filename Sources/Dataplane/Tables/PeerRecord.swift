import PacketIO

/// What is in force of one peer, the same for all workers. It never changes: with another configuration or agreement,
/// a peer has another record.
package final class PeerRecord: @unchecked Sendable {
  package let configuration: PeerConfiguration
  /// What was negotiated with it.
  package let agreement: AddressAgreement
  /// What configuration and agreement come to.
  package let plan: AddressPlan.Peer
  /// Tells peers apart that have one row after the other.
  let serial: UInt64
  /// Nil: addresses are the same on both sides.
  let translation: StateCell<PrefixTranslation>?
  /// Nil: everything that the rules allow.
  let access: StateCell<RuleSet>?

  /// - Parameter before: of the same peer: what is the same is taken over.
  init(
    _ configuration: PeerConfiguration, _ agreement: AddressAgreement, _ plan: AddressPlan.Peer, serial: UInt64,
    before: PeerRecord?
  ) {
    self.configuration = configuration
    self.agreement = agreement
    self.plan = plan
    self.serial = serial
    if let before, before.plan == plan, before.configuration.translation == configuration.translation {
      translation = before.translation
    } else {
      switch PrefixTranslation(plan, configuration.translation) {
      case .some(let tables): translation = StateCell(tables)
      case .none: translation = nil
      }
    }
    if let before, before.configuration.access == configuration.access {
      access = before.access
    } else {
      access = configuration.access.map { StateCell(RuleSet($0.flatMap { $0.rules(from: 1) })) }
    }
  }
}

/// What one worker has of a peer and writes: its state, and that of the associations which this worker has.
package final class PeerCells: @unchecked Sendable {
  let state: StateCell<Peer>
  /// With worker 0, the association of `PeerConfiguration.outbound`.
  let outbound: StateCell<OutboundAssociation>?
  /// The worker's own.
  let own: StateCell<OutboundAssociation>?
  /// In the configuration's order.
  let inbound: [StateCell<InboundAssociation>]

  init(
    state: StateCell<Peer>, outbound: StateCell<OutboundAssociation>?, own: StateCell<OutboundAssociation>?,
    inbound: [StateCell<InboundAssociation>]
  ) {
    self.state = state
    self.outbound = outbound
    self.own = own
    self.inbound = inbound
  }
}
