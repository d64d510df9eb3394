import PacketIO
public import Transports

/// What a gateway shows to those who connect to its TLS port.
public struct PlannedTLS: Sendable, Equatable {
  /// Nil: one that is made at the start.
  public var certificate: TLSCertificate?
  /// The Unix socket of the web server that others are handed on to; nil: there is none.
  public var webServer: String?

  /// With a certificate that is made at the start.
  public init() {}
}
