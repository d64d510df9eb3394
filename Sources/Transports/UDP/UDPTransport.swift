import Glibc
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
    let socket4: UDPSocket?
    var socket6: UDPSocket?
    if let address {
      let socket = try UDPSocket(address: address, port: port, worker: worker, of: workers)
      socket4 = address.isV4 ? socket : nil
      socket6 = address.isV4 ? nil : socket
    } else {
      socket4 = try UDPSocket(address: IPAddress(v4: 0), port: port, worker: worker, of: workers)
      do {
        socket6 = try UDPSocket(
          address: IPAddress(v6High: 0, low: 0), port: port, worker: worker, of: workers)
      } catch {
        // A machine without IPv6 tunnels over IPv4.
        guard error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL else {
          socket4?.close()
          throw error
        }
      }
    }
    return try UDPLink(
      socket4: socket4, socket6: socket6, index: index, receiveBuffers: receiveBuffers, io: &io)
  }
}
