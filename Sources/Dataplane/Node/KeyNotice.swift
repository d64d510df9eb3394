/// What whoever agrees upon keys has to know of a peer with `negotiatesKeys`.
public enum KeyNotice: Sendable, Equatable {
  /// The first packet was opened under an ephemeral association: the peer has its key. Told once.
  case opened(peer: String, spi: UInt32)
  /// There was a packet for the peer and no key. Told ten times a second at most.
  case wanted(peer: String)
  /// For two seconds packets went to the peer, also such as it has to answer, and nothing came back. Told again after
  /// as long.
  case silent(peer: String)
  /// What was sealed under an ephemeral association has come to a soft limit. Told once.
  case worn(peer: String, spi: UInt32)
}
