package import PacketIO

/// A probe to be sent. `size` is that of the sealed packet; 0: as small as can be.
package struct PathProbe: Sendable, Equatable {
  package var path: Path
  package var size: Int
  package var message: ProbeMessage
}

/// What the node knows of the peer's packets.
package struct PathTraffic: Sendable {
  /// Something was sent to the peer within the last second.
  package var isActive: Bool
  /// When a packet last came by the path that traffic takes.
  package var lastHeard: MonotonicTime

  package init(isActive: Bool, lastHeard: MonotonicTime) {
    self.isActive = isActive
    self.lastHeard = lastHeard
  }
}
