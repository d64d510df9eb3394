/// What an identity relay shows: who is enrolled, which pairs can talk through it, and why others cannot.
public struct RelayReport: Sendable, Equatable, Codable {
  /// A gateway that is enrolled.
  public struct Gateway: Sendable, Equatable, Codable {
    public var gid: String
    /// Where it is, as the relay sees it: "203.0.113.1:4500", or by several paths
    /// "203.0.113.1:4500, 203.0.113.1:40112 over tcp".
    public var address: String
    /// Seconds since a datagram of it was heard; 0 where it has streams alone.
    public var silence: Double
  }

  /// Two gateways that are named as a pair, or have met.
  public struct Pair: Sendable, Equatable, Codable {
    /// The GIDs, the smaller first.
    public var gateways: [String]
    /// Packets pass in both directions.
    public var isBound: Bool
    /// Why they do not; nil: they do.
    public var reason: String?
    /// Sealed packets and bytes to each, in the same order, and those that were dropped on the way there.
    public var packets: [UInt64]
    public var bytes: [UInt64]
    public var dropped: [UInt64]
  }

  /// How busy the relay is, over the last two seconds; shares of 1.
  public struct Load: Sendable, Equatable, Codable {
    /// The greatest of the three: from 0.5 a handshake waits, from 0.95 one of a new pair is refused.
    public var share: Double
    /// Of the time of its thread, of its bandwidth, and of the pairs that fit.
    public var thread: Double
    public var bandwidth: Double
    public var pairs: Double
    /// Handshakes that wait.
    public var waiting: Int
  }

  /// The relay's own GID.
  public var gid: String
  public var load: Load
  /// What has been counted, by name; reasons for which something was dropped begin with "dropped-".
  public var counters: [String: UInt64]
  public var gateways: [Gateway]
  public var pairs: [Pair]
}
