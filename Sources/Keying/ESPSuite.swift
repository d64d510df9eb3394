/// What a tunnel is sealed with, as two sides agree on it (RFC 7402 §5.1.2).
///
/// Suite 13 is that of RFC 7402's registry. Ours are from its range for private use: AES-256 and ChaCha20-Poly1305, and,
/// 16 above each, the same with the sequence number as IV (RFC 8750), which has no numbers there.
public struct ESPSuite: Hashable, Sendable {
  /// How packets are sealed.
  public enum Cipher: String, Sendable, CaseIterable {
    case aes128GCM = "aes-128-gcm"
    case aes256GCM = "aes-256-gcm"
    case chaCha20Poly1305 = "chacha20-poly1305"

    fileprivate var number: UInt16 {
      switch self {
      case .aes128GCM: 13
      case .aes256GCM: 0xFF02
      case .chaCha20Poly1305: 0xFF03
      }
    }

    /// Bytes of key and salt.
    var keyMaterialLength: Int { self == .aes128GCM ? 20 : 36 }
  }

  public var cipher: Cipher
  /// The IV is the sequence number and is not sent.
  public var implicitIV: Bool

  public init(_ cipher: Cipher, implicitIV: Bool = false) {
    self.cipher = cipher
    self.implicitIV = implicitIV
  }

  private static let implicit: UInt16 = 0x10

  /// As it stands in ESP_TRANSFORM.
  public var number: UInt16 { cipher.number + (implicitIV ? ESPSuite.implicit : 0) }

  /// Nil: none that is known here.
  public init?(number: UInt16) {
    for cipher in Cipher.allCases {
      if number == cipher.number {
        self.init(cipher)
        return
      }
      if number == cipher.number + ESPSuite.implicit {
        self.init(cipher, implicitIV: true)
        return
      }
    }
    return nil
  }

  /// The best first.
  public static let all: [ESPSuite] = [
    ESPSuite(.aes128GCM, implicitIV: true), ESPSuite(.aes128GCM), ESPSuite(.aes256GCM, implicitIV: true),
    ESPSuite(.aes256GCM), ESPSuite(.chaCha20Poly1305, implicitIV: true), ESPSuite(.chaCha20Poly1305),
  ]
}
