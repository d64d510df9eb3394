/// An address with a port, as UDP and TCP have them.
@frozen public struct Endpoint: Hashable, Sendable, BitwiseCopyable {
  public var address: IPAddress
  public var port: UInt16

  @inlinable public init(address: IPAddress, port: UInt16) {
    self.address = address
    self.port = port
  }

  /// 0.0.0.0:0: fills places of tables that hold nothing yet.
  @inlinable public static var unspecified: Endpoint { Endpoint(address: IPAddress(v4: 0), port: 0) }

  /// Reads "192.0.2.1:4500" or "[2001:db8::1]:4500"; without a port, `defaultPort`. Nil for anything else.
  public init?(_ text: String, defaultPort: UInt16) {
    if let address = IPAddress(text) {
      self.init(address: address, port: defaultPort)
      return
    }
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(digits: text[text.index(after: colon)...]), port > 0
    else {
      if text.hasPrefix("["), text.hasSuffix("]"), let address = IPAddress(String(text.dropFirst().dropLast())),
        !address.isV4
      {
        self.init(address: address, port: defaultPort)
        return
      }
      return nil
    }
    var host = text[..<colon]
    let bracketed = host.hasPrefix("[") && host.hasSuffix("]")
    if bracketed { host = host.dropFirst().dropLast() }
    guard let address = IPAddress(String(host)), bracketed == !address.isV4 else { return nil }
    self.init(address: address, port: port)
  }
}

extension FixedWidthInteger {
  /// Reads decimal digits and nothing else: no sign, no space. Nil also when the number does not fit.
  public init?(digits text: some StringProtocol) {
    guard text.utf8.allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }) else { return nil }
    self.init(text, radix: 10)
  }
}

/// As its text: figures and settings show it to people.
extension Endpoint: Codable {
  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    // A path within a stream has no port of its own.
    guard let endpoint = Endpoint(text.hasSuffix(":0") ? String(text.dropLast(2)) : text, defaultPort: 0) else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "'\(text)' is no address with a port"))
    }
    self = endpoint
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

extension Endpoint: CustomStringConvertible {
  public var description: String { address.isV4 ? "\(address):\(port)" : "[\(address)]:\(port)" }
}

/// Where a sealed packet goes to or came from: which transport, and where on it.
///
/// The dataplane stores and compares paths and never looks inside. `endpoint` and `tag` belong to the
/// transport: a datagram transport needs the endpoint only, a stream transport may number its streams in `tag`.
@frozen public struct Path: Hashable, Sendable, BitwiseCopyable {
  public var endpoint: Endpoint
  public var tag: UInt64
  /// The transport's position in the list that was handed to the dataplane, 0 to 15.
  public var transport: UInt8

  @inlinable public init(transport: UInt8 = 0, endpoint: Endpoint, tag: UInt64 = 0) {
    self.endpoint = endpoint
    self.tag = tag
    self.transport = transport
  }

  /// Of a packet that no transport brought, as one from the TUN device. No transport has its number, so that it equals no
  /// peer's path; a transport never sees it, and need not unwrap what it always has.
  @inlinable public static var none: Path { Path(transport: 0xFF, endpoint: .unspecified) }
}
