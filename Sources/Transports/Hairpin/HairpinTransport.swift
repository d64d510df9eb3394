public import PacketIO
import Synchronization

/// Paths through hairpin proxies: a gateway that cannot be reached meets its partner there, with the same sealed
/// packets as on any other path.
///
/// Each ticket's side is held open whether packets flow or not, and opened again when the proxy is lost. A peer's path
/// to it is `HairpinTicketFile.path`.
public final class HairpinTransport: Transport {
  /// A ticket and the encapsulation to its proxy.
  public struct Entry: Sendable {
    public let file: HairpinTicketFile
    public let encapsulation: Encapsulation
    /// The stream is inside TLS 1.3; all of the hairpin's, because nothing gets to another port.
    let isEncrypted: Bool
    /// What the proxy's certificate has to be for; nil: any will do.
    let certificateName: String?

    public init(_ file: HairpinTicketFile, _ encapsulation: Encapsulation) {
      self.file = file
      self.encapsulation = encapsulation
      isEncrypted = false
      certificateName = nil
    }

    /// By TCP inside TLS 1.3.
    /// - Parameters:
    ///   - endpoint: where the proxy listens for that.
    ///   - name: what its certificate has to be for; nil: any will do.
    public init(_ file: HairpinTicketFile, tlsAt endpoint: Endpoint, name: String? = nil) {
      var file = file
      file.proxy = endpoint
      self.file = file
      encapsulation = .tcp
      isEncrypted = true
      certificateName = name
    }

    /// The path's tag. Of an encrypted stream the first bit is left to the link.
    var tag: UInt64 {
      let tag = file.tag(encapsulation)
      return isEncrypted ? (tag ^ 2) & ~TCPLink.lane : tag
    }

    /// Where a peer is reached through this hairpin.
    /// - Parameter transport: the position of the `HairpinTransport` that has it.
    public func path(transport: UInt8) -> Path { Path(transport: transport, endpoint: file.proxy, tag: tag) }
  }

  /// Tickets at a time; those beyond are not used.
  public static let mostEntries = 64

  struct Shared {
    var entries: [Entry]
    var version: UInt64 = 1
    /// The link's timer, which `update` sets off.
    var timer: Int32 = -1
    /// What proxies have said last of hairpins that are not open, by their paths' tags.
    var reasons: [UInt64: HairpinReason] = [:]
  }

  let shared: Mutex<Shared>
  let receiveBuffers: Int

  /// - Parameters:
  ///   - entries: at most `mostEntries`.
  ///   - receiveBuffers: pool buffers that each of two sockets may hold for the kernel; a power of two, 2 to 64.
  public init(_ entries: [Entry] = [], receiveBuffers: Int = 16) {
    precondition(receiveBuffers.nonzeroBitCount == 1 && (2...64).contains(receiveBuffers))
    shared = Mutex(Shared(entries: Array(entries.prefix(HairpinTransport.mostEntries))))
    self.receiveBuffers = receiveBuffers
  }

  /// Puts other tickets in force, from any thread, at once. Hairpins whose ticket and path stay are not touched.
  public func update(_ entries: [Entry]) {
    shared.withLock { shared in
      shared.entries = Array(entries.prefix(HairpinTransport.mostEntries))
      shared.version += 1
      // Under the lock, so that the link cannot have closed it.
      if shared.timer >= 0 { HairpinTimer.set(shared.timer, MonotonicTime(nanoseconds: 1)) }
    }
  }

  /// Why the proxy refused a ticket, or ended its hairpin, when it was last asked; nil where the hairpin is open, or the
  /// proxy has said nothing.
  public func reason(_ entry: Entry) -> HairpinReason? { shared.withLock { $0.reasons[entry.tag] } }

  private static var streamLimits: TCPTransport.Limits {
    var limits = TCPTransport.Limits()
    // A stream to each hairpin's port, and while it is opened one to its proxy.
    limits.streams = 4 * mostEntries
    limits.destinations = 4 * mostEntries
    return limits
  }

  /// Opens a socket of each family and begins to open the hairpins; see `Transport.open`. One worker holds them all,
  /// because a ticket is for one holder.
  public func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    let encryption = try encryption()
    let timer = try HairpinTimer.open()
    let udp: UDPLink
    do {
      udp = try HairpinTransport.openDatagrams(index, receiveBuffers: receiveBuffers, io: &io)
    } catch {
      HairpinTimer.close(timer)
      throw error
    }
    let tcp = TCPLink(
      listeners: [], index: index, limits: HairpinTransport.streamLimits, receiveBuffers: 8, announcement: .hairpin,
      io: &io)
    let tls = TCPLink(
      listeners: [], index: index, limits: HairpinTransport.streamLimits, receiveBuffers: 8, encryption: encryption,
      io: &io)
    shared.withLock { $0.timer = timer }
    return HairpinLink(
      self, udp: udp, tcp: tcp, tls: tls, timer: timer, index: index, isHolder: worker == 0, io: &io)
  }

  private func encryption() throws -> StreamEncryption {
    do {
      return StreamEncryption(server: nil, client: try TLSContext(trusting: nil), handshakes: 1) { [self] endpoint in
        shared.withLock { $0.entries.first { $0.isEncrypted && $0.file.proxy == endpoint }?.certificateName }
      }
    } catch {
      throw TLSContext.unavailable
    }
  }

  private static func openDatagrams(_ index: UInt8, receiveBuffers: Int, io: inout WorkerIO) throws(SystemError)
    -> UDPLink
  {
    let sockets = try KernelSocket.both(
      port: 0,
      { address, port throws(SystemError) in try UDPSocket(address: address, port: port) }, close: { $0.close() })
    do throws(SystemError) {
      return try UDPLink(
        socket4: sockets.v4, socket6: sockets.v6, index: index, receiveBuffers: receiveBuffers, io: &io)
    } catch {
      sockets.v4.close()
      sockets.v6?.close()
      throw error
    }
  }
}
