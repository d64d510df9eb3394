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
  /// Bytes of all that have come.
  package var received: UInt64

  package init(isActive: Bool, lastHeard: MonotonicTime, received: UInt64 = 0) {
    self.isActive = isActive
    self.lastHeard = lastHeard
    self.received = received
  }
}
