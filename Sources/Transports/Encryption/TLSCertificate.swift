public import PacketIO

/// What a TLS server shows to whoever connects: its certificate, those that vouch for it, and the key.
///
/// Partners are not known by it but by the handshake that goes on inside; it is for browsers, and for those who look at
/// the port.
public struct TLSCertificate: Sendable, Equatable {
  /// Why certificate and key are of no use.
  public enum Problem: Error, Sendable, Equatable {
    /// No certificate can be read.
    case noCertificate
    /// No private key can be read; one behind a password is none.
    case noKey
    /// The key is not the certificate's.
    case anotherKey
    /// libssl has no TLS 1.3, or its configuration forbids it.
    case noTLS
  }

  let chain: [UInt8]
  let key: KeyMaterial

  /// - Parameters:
  ///   - chain: PEM (RFC 7468): the server's certificate first, then those of its issuers.
  ///   - key: PEM of the private key, without a password.
  /// - Throws: `Problem`.
  public init(chain: [UInt8], key: KeyMaterial) throws(Problem) {
    self.chain = chain
    self.key = key
    _ = try TLSContext(showing: self)
  }
}

extension TLSCertificate.Problem {
  /// What an operator is told, and of which of the two settings.
  package func words(chain: String, key: String) -> (setting: String, problem: String, remedy: String) {
    switch self {
    case .noCertificate:
      ("certificate", "\(chain) has no certificate", "write it in PEM, the server's first, then its issuers'")
    case .noKey:
      (
        "key", "\(key) has no private key that can be read",
        "write it in PEM without a password (openssl pkey -in OLD -out NEW)"
      )
    case .anotherKey: ("key", "\(key) is not the key of \(chain)", "name the two files that were made together")
    case .noTLS:
      (
        "certificate", "libssl has no TLS 1.3",
        "install OpenSSL 3, and have its configuration (OPENSSL_CONF) allow TLS 1.3"
      )
    }
  }
}
