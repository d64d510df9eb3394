import Identity
public import PacketIO

/// A key for one exchange, or for the few that share an R1.
public final class DiffieHellmanKey: Sendable {
  public let group: DiffieHellmanGroup
  /// As DIFFIE_HELLMAN holds it (RFC 7401 §5.2.7): `group.publicLength` bytes.
  public let publicValue: [UInt8]
  private let key: OpenSSLKey

  /// - Parameter scalar: random bytes: `group.secretLength` of them, or 48 for a curve of NIST's. A number below the
  ///   curve's order n, but zero, is the scalar itself; another one is reduced to 1 + (number mod (n - 1)). Nil for
  ///   another number of bytes.
  public init?(group: DiffieHellmanGroup, scalar: KeyMaterial) {
    guard scalar.count == group.secretLength || group.curve != nil && scalar.count == 48 else { return nil }
    let key = group.curve.map { OpenSSLKey($0, scalar: $0.scalar(scalar)) } ?? OpenSSLKey(x25519Scalar: scalar)
    guard let key else { return nil }
    self.group = group
    self.key = key
    publicValue = group.curve.map { key.point($0) } ?? key.raw
  }

  /// Kij (RFC 7401 §6.5): the x coordinate or X25519's output, `group.secretLength` bytes with their leading zeros.
  /// Nil: the value has another length, is no point of the curve, or gives a secret of zeros only (RFC 7748 §6.1).
  public func agree(with publicValue: [UInt8]) -> KeyMaterial? {
    guard publicValue.count == group.publicLength else { return nil }
    let peer = group.curve.map { OpenSSLKey($0, point: publicValue) } ?? OpenSSLKey(x25519: publicValue)
    guard let peer, let secret = OpenSSLDerivation.agree(key, with: peer, count: group.secretLength) else { return nil }
    return secret == KeyMaterial([UInt8](repeating: 0, count: secret.count)) ? nil : secret
  }
}
