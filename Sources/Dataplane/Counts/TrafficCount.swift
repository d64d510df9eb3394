/// Packets and bytes of inner packets.
public struct TrafficCount: Sendable, Equatable, Codable {
  public var packets: UInt64 = 0
  public var bytes: UInt64 = 0
  public init(packets: UInt64 = 0, bytes: UInt64 = 0) {
    self.packets = packets
    self.bytes = bytes
  }
}
