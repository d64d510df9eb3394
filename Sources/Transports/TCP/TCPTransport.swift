public import PacketIO

/// ESP in TCP (RFC 9329), over IPv4 and IPv6 outside: for partners that UDP does not reach.
///
/// A path with tag 0 is dialled when something is first sent there, and again when its stream is lost; what arrives on
/// that stream carries the same path. A stream that was accepted has a tag of its own, which is never used again: what
/// is sent there after its end is counted, reported and dropped.
public final class TCPTransport: Transport {
  /// The standard port of ESP in TCP (RFC 9329 §2).
  public static let standardPort: UInt16 = 4500

  /// What the transport holds at most, and what happens then.
  public struct Limits: Sendable {
    /// Streams at a time, 16 to 65535; more are refused.
    public var streams = 4096
    /// Accepted streams that no authentic packet came by yet; for one more, the oldest of them is closed.
    public var unidentified = 256
    /// The same from one address, of IPv6 from one /64; more are refused.
    public var unidentifiedPerAddress = 16
    /// Accepted streams of one peer; for one more, the oldest of them is closed. A peer needs one for each address that
    /// it dials from and a spare one for each that was just lost.
    public var streamsPerPeer = 8
    /// Time in which an accepted stream must be identified.
    public var identificationTime = Duration.seconds(10)
    /// Bytes that a stream may bring before it is identified.
    public var unidentifiedBytes = 1 << 20
    /// Time in which a dialled stream must be open.
    public var dialTime = Duration.seconds(10)
    /// Destinations that are dialled or remembered at a time; what is sent to more is dropped.
    public var destinations = 256
    /// Trains that wait for one stream; one more is dropped, and earlier where many wait: see `SendQueues`.
    public var queuedTrains = 32
    public init() {}

    var unauthenticated: StreamTable.Limits {
      StreamTable.Limits(
        unauthenticated: unidentified, perOrigin: unidentifiedPerAddress, evictsWithinOrigin: false,
        perPeer: streamsPerPeer)
    }
  }

  public let port: UInt16?
  public let address: IPAddress?
  let limits: Limits
  let receiveBuffers: Int

  /// - Parameters:
  ///   - port: the local port, 4500 by the standard; nil: it does not listen, it only dials.
  ///   - address: the local address to listen at; nil: all, of both families.
  ///   - limits: what it holds at most.
  ///   - receiveBuffers: pool buffers that all streams together may hold for the kernel; a power of two, 2 to 64.
  public init(
    port: UInt16? = standardPort, address: IPAddress? = nil, limits: Limits = Limits(), receiveBuffers: Int = 16
  ) {
    precondition(receiveBuffers.nonzeroBitCount == 1 && (2...64).contains(receiveBuffers))
    precondition((16...0xFFFF).contains(limits.streams) && limits.destinations > 0 && limits.queuedTrains > 0)
    self.port = port
    self.address = address
    self.limits = limits
    self.receiveBuffers = receiveBuffers
  }

  /// Listens, where it has a port; see `Transport.open`.
  public func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    TCPLink(
      listeners: try TCPTransport.listeners(port: port, address: address), index: index, limits: limits,
      receiveBuffers: receiveBuffers, io: &io)
  }

  /// Listens at an address, or where that is nil at all; where there is no port, nowhere.
  static func listeners(port: UInt16?, address: IPAddress?) throws(SystemError) -> [TCPSocket] {
    guard let port else { return [] }
    if let address { return [try TCPSocket(listeningAt: Endpoint(address: address, port: port))] }
    let both = try KernelSocket.both(
      port: port,
      { address, port throws(SystemError) in
        try TCPSocket(listeningAt: Endpoint(address: address, port: port))
      }, close: { $0.close() })
    return [both.v4] + [both.v6].compactMap(\.self)
  }
}
