public import PacketIO

/// One direction of an ESP tunnel (RFC 4301 §4.4.2). An association is known by SPI and key: while both stay
/// the same its sequence numbers and replay window live on through every change of the configuration.
public struct SecurityAssociationConfiguration: Sendable, Equatable {
  /// Security parameters index, 256 or greater (RFC 4303 §2.1).
  public var spi: UInt32
  public var cipher: Cipher
  /// Key, then 4 bytes of salt: `cipher.keyMaterialLength` bytes.
  public var key: KeyMaterial
  /// 64-bit extended sequence numbers (RFC 4303 §2.2.1).
  public var extendedSequenceNumbers: Bool
  /// The IV is the sequence number and is not sent (RFC 8750).
  public var implicitIV: Bool
  /// Outbound: the outer packets carry the inner ones' DSCP (RFC 2983 §3.1); ECN is always carried (RFC 6040).
  public var copiesDSCP: Bool
  /// Inbound: packets of the anti-replay window, 64 to 8192 in whole words of 64 (RFC 6479).
  public var replayWindow: Int
  /// Outbound: the first sequence number used, 1 unless the key was in use before. Inbound: numbers below it
  /// are refused as replays.
  public var firstSequence: UInt64
  /// Outbound: sequence numbers up to which sealing is allowed; raised while traffic flows. Inbound: where the highest
  /// number accepted is noted; its limit means nothing. See `SequenceLease`.
  public var lease: SequenceLease?
  /// The key was made for this association and is never used again, by whoever vouches for that: what it has sealed and
  /// opened is forgotten with it, and its first packet is told of (`KeyNotice`).
  public var isEphemeral: Bool
  /// Outbound: when the key is worn, and when it is used up; nil: as its sequence numbers are.
  public var lifetime: AssociationLifetime?

  public init(
    spi: UInt32, cipher: Cipher, key: KeyMaterial, extendedSequenceNumbers: Bool = true, implicitIV: Bool = false,
    copiesDSCP: Bool = false, replayWindow: Int = 2048, firstSequence: UInt64 = 1, lease: SequenceLease? = nil,
    isEphemeral: Bool = false, lifetime: AssociationLifetime? = nil
  ) {
    self.spi = spi
    self.cipher = cipher
    self.key = key
    self.extendedSequenceNumbers = extendedSequenceNumbers
    self.implicitIV = implicitIV
    self.copiesDSCP = copiesDSCP
    self.replayWindow = replayWindow
    self.firstSequence = firstSequence
    self.lease = lease
    self.isEphemeral = isEphemeral
    self.lifetime = lifetime
  }

  /// Two descriptions of one association; its counters' starting points do not matter once it runs.
  public func isSameAssociation(as other: SecurityAssociationConfiguration) -> Bool {
    spi == other.spi && cipher == other.cipher && key == other.key
      && extendedSequenceNumbers == other.extendedSequenceNumbers && implicitIV == other.implicitIV
      && copiesDSCP == other.copiesDSCP && replayWindow == other.replayWindow
  }
}

/// How much is sealed under a key (RFC 4301 §4.4.2.1): at the soft limits the embedder is told, at the hard ones nothing
/// goes any more.
public struct AssociationLifetime: Sendable, Equatable {
  public var softPackets: UInt64
  /// At most 2^64 - 2 with extended sequence numbers, and 2^32 - 1 without.
  public var packets: UInt64
  /// Noticed some thousand packets later, as is `bytes`.
  public var softBytes: UInt64
  public var bytes: UInt64

  public init(softPackets: UInt64, packets: UInt64, softBytes: UInt64, bytes: UInt64 = .max) {
    self.softPackets = softPackets
    self.packets = packets
    self.softBytes = softBytes
    self.bytes = bytes
  }
}
