public import PacketIO

/// An address prefix, "10.1.0.0/16" or "2001:db8::/32"; the bits behind the prefix are zero.
public struct Prefix: Hashable, Sendable {
  public let address: IPAddress
  /// Leading bits that count: 0 to 32 (IPv4) or 128 (IPv6).
  public let length: Int

  /// Clears the bits behind the prefix. `length` must fit the address family.
  public init(_ address: IPAddress, length: Int) {
    precondition((0...address.bitWidth).contains(length))
    self.length = length
    var masked = address
    masked.high &= length >= 64 ? ~0 : ~(~0 >> UInt64(length))
    masked.low &= length <= 64 ? 0 : ~(length == 128 ? 0 : ~0 >> UInt64(length - 64))
    self.address = masked
  }

  /// Reads "ADDRESS/LENGTH", or a bare address as a prefix of its full width. Nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard let address = IPAddress(String(parts[0])) else { return nil }
    guard parts.count > 1 else {
      self.init(address, length: address.bitWidth)
      return
    }
    guard parts.count == 2, let length = Int(digits: parts[1]), (0...address.bitWidth).contains(length) else {
      return nil
    }
    self.init(address, length: length)
  }

  /// Whether `address` is of the same family and shares the prefix's bits.
  public func contains(_ address: IPAddress) -> Bool {
    address.family == self.address.family && Prefix(address, length: length).address == self.address
  }
}

extension Prefix: CustomStringConvertible {
  public var description: String { "\(address)/\(length)" }
}

/// As text, "10.1.0.0/16".
extension Prefix: Codable {
  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    guard let prefix = Prefix(text) else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "'\(text)' is no prefix"))
    }
    self = prefix
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
