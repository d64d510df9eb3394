public import PacketIO
import Synchronization

/// ESP in TCP (RFC 9329) inside TLS 1.3 (RFC 8446): for networks that let out nothing but HTTPS.
///
/// Paths are those of `TCPTransport`. Who is at the other end, the handshake inside tells, not a certificate; a name that
/// is given for an endpoint (`names`) is asked for and checked all the same. What connects here and is no partner gets the
/// answer of a web server without pages.
public final class TLSTransport: Transport {
  /// The port of HTTPS.
  public static let standardPort: UInt16 = 443

  /// The local port, and the address; nil: it only dials, and all addresses.
  public let port: UInt16?
  public let address: IPAddress?
  let authorities: [UInt8]?
  let webServer: String?
  let limits: TCPTransport.Limits
  let handshakes: Int
  private let names: Mutex<[Endpoint: String]>
  private let shown: Mutex<Shown>

  /// What is shown to who connects.
  private struct Shown {
    var certificate: TLSCertificate?
    /// Nil before it was opened, and where it does not listen.
    var context: TLSContext?
  }

  /// What it holds when nothing else is said: as TCP, but fewer streams, because each has memory of its own.
  public static var defaultLimits: TCPTransport.Limits {
    var limits = TCPTransport.Limits()
    limits.streams = 1024
    return limits
  }

  /// - Parameters:
  ///   - port: the local port; nil: it does not listen, it only dials.
  ///   - address: the local address to listen at; nil: all, of both families.
  ///   - certificate: what is shown to who connects; nil: one is made at each start, for a name that says nothing.
  ///   - names: what certificates have to be for, by where is dialled; elsewhere any certificate will do.
  ///   - authorities: PEM of certificates that vouch for names; nil: the system's.
  ///   - webServer: the path of a Unix socket: who connects and is no partner is handed on to the web server that listens
  ///     there, in the clear; nil: is answered that there are no pages.
  ///   - limits: what it holds at most.
  ///   - handshakes: that strangers may have in a second; of one origin an eighth of them.
  public init(
    port: UInt16? = nil, address: IPAddress? = nil, certificate: TLSCertificate? = nil, names: [Endpoint: String] = [:],
    authorities: [UInt8]? = nil, webServer: String? = nil, limits: TCPTransport.Limits = defaultLimits,
    handshakes: Int = 400
  ) {
    self.port = port
    self.address = address
    shown = Mutex(Shown(certificate: certificate))
    self.names = Mutex(names)
    self.authorities = authorities
    self.webServer = webServer
    self.limits = limits
    self.handshakes = handshakes
  }

  /// Other names from now on, from any thread; streams that are open stay.
  public func update(names: [Endpoint: String]) { self.names.withLock { $0 = names } }

  /// Another certificate from now on, from any thread; streams that are open stay.
  /// - Parameter certificate: nil: the one that was made at the start, or is made now.
  /// - Throws: `TLSCertificate.Problem`.
  public func update(certificate: TLSCertificate?) throws {
    try shown.withLock { shown in
      guard shown.certificate != certificate else { return }
      try shown.context?.show(certificate)
      shown.certificate = certificate
    }
  }

  /// Listens, where it has a port; see `Transport.open`.
  public func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink {
    let (server, client) = try contexts()
    let encryption = StreamEncryption(
      server: server, client: client, handshakes: handshakes, webServer: webServer,
      name: { [self] endpoint in names.withLock { $0[endpoint] } })
    let listeners = try TCPTransport.listeners(port: port, address: address)
    return TCPLink(
      listeners: listeners, index: index, limits: limits, receiveBuffers: 16, encryption: encryption, io: &io)
  }

  private func contexts() throws -> (server: TLSContext?, client: TLSContext) {
    do {
      let server = try shown.withLock { shown in
        if port != nil { shown.context = try TLSContext(showing: shown.certificate) }
        return shown.context
      }
      return (server, try TLSContext(trusting: authorities))
    } catch TLSCertificate.Problem.noTLS {
      throw TLSContext.unavailable
    }
  }
}
