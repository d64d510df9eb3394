import PacketIO
import Transports

/// How the gateways of a test have TLS: both listen, `a` dials.
struct TLSPlan: Sendable {
  /// Nil: made at the start.
  var certificate: TLSCertificate?
  /// What `a` wants the certificate to be for, and whom it trusts.
  var names: [Endpoint: String] = [:]
  var authorities: [UInt8]?
  var webServer: String?
  /// Seconds that a stranger has.
  var identificationTime = Duration.seconds(10)

  func transport(of side: Side) -> TLSTransport {
    guard side == .b else {
      return TLSTransport(port: TLSTransport.standardPort, names: names, authorities: authorities)
    }
    var limits = TLSTransport.defaultLimits
    limits.identificationTime = identificationTime
    return TLSTransport(
      port: TLSTransport.standardPort, certificate: certificate, webServer: webServer, limits: limits)
  }
}
