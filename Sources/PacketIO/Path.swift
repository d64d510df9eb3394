/// An address with a port, as UDP and TCP have them.
@frozen public struct Endpoint: Hashable, Sendable, BitwiseCopyable {
  public var address: IPAddress
  public var port: UInt16

  @inlinable public init(address: IPAddress, port: UInt16) {
    self.address = address
    self.port = port
  }

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

  /// Placeholder where a packet has no outer path, as on its way from the TUN device.
  @inlinable public static var none: Path {
    Path(transport: 0xFF, endpoint: Endpoint(address: IPAddress(v4: 0), port: 0))
  }
}
