public import PacketIO

/// UDP-encapsulated ESP (RFC 3948), over IPv4 and IPv6.
public final class UDPTransport: Transport {
  public let port: UInt16
  public let address: IPAddress?

  /// - Parameters:
  ///   - port: the local port, 4500 by the standard.
  ///   - address: the local address; nil: all, of both families.
  public init(port: UInt16 = 4500, address: IPAddress? = nil) {
    self.port = port
    self.address = address
  }

  public func open(worker: Int, index: UInt8, owner: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    fatalError()
  }
}
