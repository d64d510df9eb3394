/// Which way a packet goes, seen from this gateway.
public enum TrafficDirection: UInt8, Sendable, CodedByName, BitwiseCopyable {
  /// From this side to a partner.
  case outbound = 0
  /// From a partner to this side.
  case inbound = 1

  @inline(__always)
  var opposite: TrafficDirection { self == .outbound ? .inbound : .outbound }

  /// "outbound", "inbound".
  public var name: String { self == .outbound ? "outbound" : "inbound" }
}
