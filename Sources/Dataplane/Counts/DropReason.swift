/// Why a packet went no further. Every drop has one of these and is counted under it (invariant 4).
public enum DropReason: UInt8, Sendable, CaseIterable, BitwiseCopyable {
  // Outbound
  /// Neither IPv4 nor IPv6, or shorter than its headers say.
  case malformedPacket
  /// No peer has a prefix that covers the destination.
  case noRoute
  /// The peer has no outbound association.
  case noAssociation
  /// The peer's real address is not known.
  case noPath
  /// The association's sequence numbers are used up: it needs a new key (RFC 4303 §2.2).
  case sequenceExhausted
  /// The lease on sequence numbers has not been raised in time.
  case sequenceNotLeased
  /// Every packet buffer is in use.
  case noBuffer
  /// Larger than the path takes, and not to be cut; the sender was told (RFC 1191, RFC 8201).
  case exceedsPathMTU
  /// The source is neither this side's nor another peer's.
  case foreignSource

  /// Another worker was to handle it, and the way there was full. In both directions.
  case handOverFull

  // Inbound
  /// Too short for ESP, or not a whole number of words.
  case truncated
  /// No association has this SPI.
  case unknownSPI
  /// Seen before, or left of the replay window.
  case replayed
  /// The integrity check value is wrong: altered, or sealed under another key.
  case authenticationFailed
  /// Authentic, but the padding is not 1, 2, 3, … (RFC 4303 §2.4).
  case badPadding
  /// Next header 59: traffic-flow padding, meant to be dropped.
  case dummyPacket
  /// Authentic, but neither IPv4 nor IPv6 inside.
  case unknownNextHeader
  /// The inner packet contradicts its own length or version.
  case malformedInnerPacket
  /// The inner source is not the peer's that sealed it: it does not route back there, or no host can have it.
  case spoofedSource
  /// Marked by a congested router on the way, but its flow knows no ECN (RFC 6040 §4.2).
  case congestionExperienced
  /// The TUN device did not take it.
  case deviceRefused
  /// An AGGFRAG payload whose header or blocks are not as RFC 9347 §6.1 has them.
  case malformedAggregate
  /// A fragment of an inner packet whose other fragments did not come in time (RFC 9347 §2.2.3).
  case incompletePacket
  /// The peer has sent more control messages than are looked into for one.
  case controlLimit

  // Both directions: the firewall
  /// A rule denies the flow.
  case firewallRule
  /// No rule allows the flow, and the default policy does not either.
  case firewallDefault
  /// The partner's access list does not have the host.
  case accessList
  /// It does not fit the connection it belongs to, or answers what was not asked.
  case invalidConnectionState
  /// A fragment whose first one did not pass or was not seen, or that could hide a header.
  case fragmentRefused
  /// The sender chose its way, which could lead past the firewall.
  case sourceRouted
}

extension DropReason {
  /// The case's name in the style of configuration files: "authentication-failed".
  public var name: String {
    var text = ""
    var lastIsUppercase = true
    for character in "\(self)" {
      if character.isUppercase, !lastIsUppercase { text.append("-") }
      lastIsUppercase = character.isUppercase
      text.append(contentsOf: character.lowercased())
    }
    return text
  }
}

extension DropReason: Codable, CodedByName {
  /// Reads the name.
  /// - Throws: `DecodingError` for another one.
  public init(from decoder: any Decoder) throws { self = try .decoded(from: decoder) }

  /// Writes the name, as a string.
  public func encode(to encoder: any Encoder) throws { try encodeName(to: encoder) }
}
