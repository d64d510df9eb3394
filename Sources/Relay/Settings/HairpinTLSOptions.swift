public import PacketIO
public import Transports

/// A proxy's port for TLS 1.3, where hairpins and gateways of an identity relay have streams like those in the clear.
public struct HairpinTLSOptions: Sendable {
  /// Addresses that are listened on; no port is allocated beside these. Empty: there is no TLS.
  public var listen: [Endpoint] = []
  /// What is shown there; nil: a certificate that is made at the start.
  public var certificate: TLSCertificate?
  /// The path of a Unix socket: who connects there and is no gateway is handed on to the web server that listens there; nil:
  /// is answered that there are no pages.
  public var webServer: String?
  /// TLS handshakes that strangers may have in a second; of one origin an eighth of them.
  public var handshakes = 400

  public init() {}
}
