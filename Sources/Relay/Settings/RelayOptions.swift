public import Identity
public import Transports

/// What an identity relay is told when it starts.
public struct RelayOptions: Sendable {
  /// Who the relay is: ECDSA on P-256 or Ed25519, so that its answers are not longer than what they answer.
  public var identity: HostIdentity
  /// Who may meet whom.
  public var policy: RelayPolicy
  /// Control systems whose tickets let gateways meet of which no rule says whether they may.
  public var ticketKeys: [HairpinPublicKey] = []
  /// By which tickets name this relay; others are not for it. Empty: only tickets that name none are.
  public var name = ""
  /// Gateways that may be enrolled at a time; more are told that the relay is full.
  public var gateways = 4096
  /// Pairs of which something may be bound at a time, a few hundred bytes each; others are told that the relay is busy.
  public var pairs = 16_384
  /// Bits a second of sealed packets of all pairs together; 0: no limit. What is above is dropped, the lowest priority
  /// first.
  public var bandwidth: UInt64 = 0
  /// Seconds without a word from a gateway after which it is not enrolled any more.
  public var silence: UInt16 = 120
  /// Signatures of handshakes that are checked in a second, and may come at once: half of a core, about.
  public var signatures: UInt64 = 5000
  /// Enrolments of one origin that are looked at in a second: an IPv4 address, a /64 of IPv6.
  public var enrolmentsPerOrigin: UInt64 = 4
  /// The same of all.
  public var enrolments: UInt64 = 2000

  public init(identity: HostIdentity, policy: RelayPolicy = RelayPolicy()) {
    self.identity = identity
    self.policy = policy
  }

  /// Whether a relay can have such an identity: an answer to an enrolment has its key and a signature, and is not to be
  /// longer than the shortest enrolment.
  /// ECDSA on P-256 (67 bytes of host identity) and Ed25519 (36 bytes) are.
  public static func isFit(_ identity: PublicHostIdentity) -> Bool { [67, 36].contains(identity.hostIdentity.count) }

  /// Bytes of a signature of either.
  static let signatureLength = 64
}
