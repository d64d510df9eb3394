/// Which way a packet goes, seen from this gateway.
public enum TrafficDirection: UInt8, Sendable, CaseIterable, BitwiseCopyable {
  /// From this side to a partner.
  case outbound = 0
  /// From a partner to this side.
  case inbound = 1

  @inline(__always)
  var opposite: TrafficDirection { self == .outbound ? .inbound : .outbound }

  /// "outbound", "inbound".
  public var name: String { self == .outbound ? "outbound" : "inbound" }
}

extension TrafficDirection: Codable, CodedByName {
  /// Reads the name.
  /// - Throws: `DecodingError` for another one.
  public init(from decoder: any Decoder) throws { self = try .decoded(from: decoder) }

  /// Writes the name, as a string.
  public func encode(to encoder: any Encoder) throws { try encodeName(to: encoder) }
}
