public import PacketIO

/// What an embedder may want to know without asking.
public enum Event: Sendable, Equatable {
  // State events: of each subject the newest is kept, and it cannot be lost.

  /// The dataplane carries packets. `refusedOffloads` were asked for and failed their self-test.
  case started(interface: String, engine: CipherEngine?, offloads: TunOffloads, refusedOffloads: TunOffloads)
  /// With several workers: the kernel does not take the program that tells it whose a packet is, so workers hand over
  /// more.
  case queuesNotSteered(SystemError)
  case configurationApplied(peers: Int)
  /// An authenticated packet moved the path of a peer that has one path.
  case pathChanged(peer: String, path: Path)
  /// The traffic to a peer that has several paths takes another one.
  case pathSelected(peer: String, PathChange)
  /// An outbound association has few sequence numbers left, or none: give the peer a new key.
  case sequenceNumbersRunningOut(peer: String, spi: UInt32, remaining: UInt64)
  /// The two ends of an association do not agree on its sequence numbers, or do again.
  case sequenceNumbersDisagree(peer: String, spi: UInt32, SequenceDisagreement)
  /// The prefixes by which a peer and this side know each other have changed; for the record. While a prefix is
  /// pending, the two gateways are still talking.
  case addressesAgreed(peer: String, AddressAgreement)
  /// What was agreed could not be put in force, most often because the device's routes could not follow. What was in
  /// force stays, and it is tried again every few seconds.
  case addressesNotInForce(SystemError)
  /// The ring or the device failed for good; no packet is carried any more.
  case failed(SystemError)
  case stopped

  // Rate events: dropped, and counted, when the reader is slow.

  /// Nothing can be sent along a path, or could not be just now. Told once, and again when it fails for another reason,
  /// until `transportRecovered`. `peer` is whose path it is, where it is that of one.
  case transportError(transport: Int, path: Path, peer: String? = nil, error: SystemError)
  /// Something was sent there, and nothing has failed for five seconds; `untold` failures came after the one that was
  /// told.
  case transportRecovered(transport: Int, path: Path, peer: String? = nil, untold: UInt64)
  /// What the firewall allowed or refused, where logging was asked for.
  case firewallLog(FirewallLogEntry)

  /// What a state event speaks of; nil for rate events.
  var subject: String? {
    switch self {
    // Each happens once, and none makes another old.
    case .started: "start"
    case .queuesNotSteered: "queues"
    case .failed: "failure"
    case .stopped: "end"
    case .configurationApplied: "configuration"
    case .pathChanged(let peer, _), .pathSelected(let peer, _): "path of \(peer)"
    case .sequenceNumbersRunningOut(let peer, _, _): "numbers of \(peer)"
    case .sequenceNumbersDisagree(let peer, _, let what): "\(what.rawValue) of \(peer)"
    case .addressesAgreed(let peer, _): "addresses of \(peer)"
    case .addressesNotInForce: "addresses"
    case .transportError, .transportRecovered, .firewallLog: nil
    }
  }
}
