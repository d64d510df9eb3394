import Identity

/// A group of DIFFIE_HELLMAN (RFC 7401 §5.2.7), by its number there. None of the groups modulo a prime: what RFC 7401
/// demands of them, 1536 bits, is too weak today.
public enum DiffieHellmanGroup: UInt8, Sendable, CaseIterable {
  /// RFC 7748; the number is for private use.
  case x25519 = 253
  /// NIST's curve of 256 bits (RFC 5903 §3.1).
  case p256 = 7
  /// NIST's curve of 384 bits (RFC 5903 §3.2).
  case p384 = 8

  var curve: PrimeCurve? {
    switch self {
    case .x25519: nil
    case .p256: .p256
    case .p384: .p384
    }
  }

  /// Bytes of a public value: 32, 64, 96. That of a curve of NIST's is x ‖ y (RFC 5903 §7).
  public var publicLength: Int { curve.map { 2 * $0.length } ?? 32 }

  /// Bytes of what is agreed upon, and of a scalar: 32, 32, 48.
  public var secretLength: Int { curve?.length ?? 32 }
}
