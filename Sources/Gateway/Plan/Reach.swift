import PacketIO

/// Whether somebody outside can open a path to a gateway, as far as its operator says.
enum Reach: String, Sendable, CaseIterable, Codable {
  /// Anybody can.
  case open
  /// A firewall or address translator lets in only what answers something from inside.
  case firewalled
  /// Not known: it is tried.
  case auto

  /// Who opens a direct path.
  enum Opener: Sendable, Equatable {
    case here, there
    /// Whoever can.
    case both
    /// Only paths that meet at a third party remain.
    case nobody
  }

  /// Where both are open, the side with the higher address opens the path, so that there is one and not two; where one
  /// is behind a firewall, that one does.
  ///
  /// - Parameter ownAddress: from which this side sends to the peer; nil: not known, so both open it.
  static func opener(
    here: Reach, there: Reach, ownAddress: IPAddress?, peerAddress: IPAddress
  ) -> Opener {
    switch (here, there) {
    case (.firewalled, .firewalled): .nobody
    case (.firewalled, _): .here
    case (_, .firewalled): .there
    case (.open, .open):
      if let ownAddress, ownAddress != peerAddress { ownAddress > peerAddress ? .here : .there } else { .both }
    default: .both
    }
  }
}
