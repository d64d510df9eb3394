/// Which library seals and opens packets.
public enum CipherEngine: String, Sendable, CaseIterable, Codable {
  /// Intel's multi-buffer IPsec library (x86-64).
  case multiBuffer = "multi-buffer"
  case openSSL = "openssl"

  /// Those that this build and CPU can use, the fastest first.
  ///
  /// The multi-buffer library counts where it was there at build time and the CPU has at least AES-NI, PCLMULQDQ
  /// and AVX2: without those it runs, but brings nothing over OpenSSL, which is always last.
  public static let available: [CipherEngine] = {
    #if CULVERT_IPSEC_MB
      return MultiBufferLibrary.isUsable ? [.multiBuffer, .openSSL] : [.openSSL]
    #else
      return [.openSSL]
    #endif
  }()

  /// Whether `AEAD` can be made of this engine and `cipher`. OpenSSL may have been configured to lack some, for
  /// example ChaCha20-Poly1305 where only FIPS 140 algorithms are allowed.
  public func supports(_ cipher: Cipher) -> Bool {
    guard CipherEngine.available.contains(self) else { return false }
    switch self {
    case .multiBuffer: return true
    case .openSSL: return OpenSSLKey.supports(cipher)
    }
  }
}

/// How packets are sealed: by an engine, or for a benchmark's bound not at all.
///
/// `CipherEngine` is what configurations and options can name. This type cannot be written in either; it exists so
/// that the benchmark can run the whole path with the cryptography left out.
package enum Sealing: Sendable, Equatable {
  case by(CipherEngine)
  /// Copies the bytes and leaves the ICV zero when sealing, believes everything when opening.
  case leftOut
}
