public import PacketIO

/// UDP-encapsulated ESP (RFC 3948), over IPv4 and IPv6 outside.
///
/// Each train leaves as one send with UDP segmentation offload and arrives as one receive; where a route cannot
/// segment, datagrams go one by one. Errors of a send (no route, too big, no memory, refused) are counted,
/// reported and survived.
public final class UDPTransport: Transport {
  /// The standard port of ESP in UDP (RFC 3948 §2.1).
  public static let standardPort: UInt16 = 4500

  public let port: UInt16
  public let address: IPAddress?
  let receiveBuffers: Int

  /// - Parameters:
  ///   - port: the local port, 4500 by the standard.
  ///   - address: the local address; nil: all, of both families.
  ///   - receiveBuffers: pool buffers that each socket may hold for the kernel; a power of two, 2 to 64.
  public init(port: UInt16 = standardPort, address: IPAddress? = nil, receiveBuffers: Int = 16) {
    precondition(receiveBuffers.nonzeroBitCount == 1 && (2...64).contains(receiveBuffers))
    self.port = port
    self.address = address
    self.receiveBuffers = receiveBuffers
  }

  /// Bytes that IP and UDP headers add to a sealed packet.
  public static func overhead(_ path: Path) -> Int { (path.endpoint.address.isV4 ? 20 : 40) + 8 }

  /// Opens one socket for each address family of this worker; see `Transport.open`.
  public func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    try link(worker: worker, of: 1, index: index, io: &io)
  }

  /// All workers' sockets share the port; a packet comes to the worker whose number is the SPI's.
  public func open(
    worker: Int, of workers: Int, index: UInt8, io: inout WorkerIO
  ) throws -> (any TransportLink)? {
    try link(worker: worker, of: workers, index: index, io: &io)
  }

  private func link(
    worker: Int, of workers: Int, index: UInt8, io: inout WorkerIO
  ) throws -> any TransportLink {
    let sockets: (v4: UDPSocket?, v6: UDPSocket?)
    if let address {
      let socket = try UDPSocket(address: address, port: port, worker: worker, of: workers)
      sockets = address.isV4 ? (socket, nil) : (nil, socket)
    } else {
      sockets = try KernelSocket.both(
        port: port,
        { address, port throws(SystemError) in
          try UDPSocket(address: address, port: port, worker: worker, of: workers)
        }, close: { $0.close() })
    }
    return try UDPLink(
      socket4: sockets.v4, socket6: sockets.v6, index: index, receiveBuffers: receiveBuffers, io: &io)
  }
}
