import PacketIO

/// How the streams of a table are encrypted.
package struct StreamEncryption {
  /// For streams that are accepted; nil: they are not encrypted.
  let server: TLSContext?
  /// For those that are dialled.
  let client: TLSContext?
  /// Handshakes of strangers in a second.
  let handshakes: Int
  /// The name that a certificate there has to have; nil: any.
  let name: @Sendable (Endpoint) -> String?
  /// The path of the Unix socket of the web server that others are handed on to; nil: there is none.
  let webServer: String?

  init(
    server: TLSContext?, client: TLSContext?, handshakes: Int, webServer: String? = nil,
    name: @escaping @Sendable (Endpoint) -> String? = { _ in nil }
  ) {
    self.server = server
    self.client = client
    self.handshakes = handshakes
    self.name = name
    self.webServer = webServer
  }

  /// For streams that are accepted alone.
  package init(server: TLSContext, handshakes: Int, webServer: String?) {
    self.init(server: server, client: nil, handshakes: handshakes, webServer: webServer)
  }
}
