/// Small packets that shared ESP packets (RFC 9347). They are counted as packets everywhere else.
public struct AggregationCount: Sendable, Equatable, Codable {
  /// ESP packets sent with more than one packet in each, and the packets in them.
  public var sent: UInt64 = 0
  public var packetsSent: UInt64 = 0
  /// ESP packets taken in that form, and what they brought: packets, whether they got in or not, and whatever else was
  /// dropped for a reason.
  public var received: UInt64 = 0
  public var packetsReceived: UInt64 = 0

  public init() {}
}
