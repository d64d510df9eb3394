import PacketIO

/// What the streams of a link, or a relay, have shown as TLS.
package struct TLSFigures: BitwiseCopyable {
  /// Handshakes that came to their end, on either side.
  package internal(set) var handshakes: UInt64 = 0
  /// Streams that were no TLS 1.3, or whose bytes were altered on the way.
  package internal(set) var failed: UInt64 = 0
  /// Dialled streams at whose end is a certificate for another name, or of nobody who is trusted.
  package internal(set) var certificateRefused: UInt64 = 0
  /// Streams of strangers beyond the handshakes that they may have.
  package internal(set) var tooMany: UInt64 = 0

  var counters: [TransportCounter] {
    [
      TransportCounter(name: "tls-handshakes", value: handshakes), TransportCounter(name: "tls-failed", value: failed),
      TransportCounter(name: "tls-certificate-refused", value: certificateRefused),
      TransportCounter(name: "tls-too-many-handshakes", value: tooMany),
    ]
  }
}
