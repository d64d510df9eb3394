package import PacketIO

/// What a worker knows of a peer and changes while packets flow. Lives on through changes of the configuration.
package struct Peer: ~Copyable {
  /// Where sealed packets go; nil until configured or learned.
  package var path: Path?
  package var sent = TrafficCount()
  package var received = TrafficCount()
  /// The last authenticated packet.
  package var lastHeard: MonotonicTime?
  /// The last sealed packet or keep-alive.
  package var lastSent: MonotonicTime
  /// The train being filled for this peer, by its place among the open ones; -1: none.
  var openTrain = -1
  /// The path moved and the embedder was not told yet.
  package var pathMoved = false

  package init(path: Path?, now: MonotonicTime) {
    self.path = path
    lastSent = now
  }
}
