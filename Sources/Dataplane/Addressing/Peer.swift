package import PacketIO

/// What a worker knows of a peer and changes while packets flow. Lives on through changes of the configuration.
package struct Peer: ~Copyable {
  /// Where sealed packets go; nil until configured or learned.
  package var path: Path?
  package var sent = TrafficCount()
  package var received = TrafficCount()
  package var translated = TranslationCount()
  /// The last authenticated packet.
  package var lastHeard: MonotonicTime?
  /// The last sealed packet or keep-alive.
  package var lastSent: MonotonicTime
  /// How large packets on the path may be; nil where any size fits.
  package private(set) var mtu: PathMTU?
  /// Bytes that the road adds to a sealed packet.
  private(set) var overhead = 0
  /// The train being filled for this peer, by its place among the open ones; -1: none.
  var openTrain = -1
  /// The path moved and the embedder was not told yet.
  package var pathMoved = false

  package init(path: Path?, now: MonotonicTime) {
    self.path = path
    lastSent = now
  }

  /// The path is another one, so what was measured does not hold any more.
  ///
  /// - Parameters:
  ///   - overhead: bytes the road adds to a sealed packet; nil when it takes packets of any size.
  ///   - largestSealed: bytes of the largest sealed packet the configuration can cause.
  package mutating func roadChanged(overhead: Int?, largestSealed: Int, raiseInterval: UInt64) {
    self.overhead = overhead ?? 0
    mtu = overhead.map { PathMTU(maximum: largestSealed + $0, raiseInterval: raiseInterval) }
  }

  /// Bytes of the largest inner packet that fits the path now.
  @inline(__always)
  func largestInner(implicitIV: Bool) -> Int {
    let sealed = mtu.map { $0.current &- overhead } ?? OutboundPipeline.trainBytes
    return ESPPacket.largestInner(sealed, implicitIV: implicitIV)
  }

  /// Lends the path MTU's state machine.
  package mutating func withMTU<R>(_ body: (inout PathMTU) -> R) -> R? {
    guard mtu != nil else { return nil }
    return body(&mtu!)
  }
}
