package import PacketIO

/// The additional authenticated data of an ESP packet (RFC 4106 §5): SPI ‖ sequence, or with extended sequence
/// numbers SPI ‖ high half ‖ low half; as it stands in memory, in network byte order.
package struct AdditionalData: BitwiseCopyable {
  package var words: (UInt32, UInt32, UInt32)
  /// 8 or 12 bytes.
  package var count: Int

  @inline(__always) package init(spi: UInt32, sequence: UInt64, extended: Bool) {
    let low = UInt32(truncatingIfNeeded: sequence).bigEndian
    let high = UInt32(truncatingIfNeeded: sequence >> 32).bigEndian
    words = extended ? (spi.bigEndian, high, low) : (spi.bigEndian, low, 0)
    count = extended ? 12 : 8
  }
}

/// An expanded key of one cipher, and the library that computes with it.
///
/// The memory that holds the key belongs to this value and is zeroed when it ends. One thread at a time may use a
/// value, for sealing and opening alike; different values are independent.
package struct AEAD: ~Copyable {
  /// Bytes of the integrity check value.
  package static let icvLength = 16

  package let cipher: Cipher
  package let sealing: Sealing
  private let key: EngineKey

  /// - Parameters:
  ///   - key: key and salt, `cipher.keyMaterialLength` bytes.
  ///   - engine: one that supports the cipher, see `CipherEngine.supports`.
  package init(_ cipher: Cipher, key: KeyMaterial, engine: CipherEngine) {
    self.init(cipher, key: key, sealing: .by(engine))
  }

  package init(_ cipher: Cipher, key: KeyMaterial, sealing: Sealing) {
    precondition(key.count == cipher.keyMaterialLength, "key material of the wrong length for \(cipher.rawValue)")
    self.cipher = cipher
    self.sealing = sealing
    self.key = EngineKey(cipher, key: key, sealing: sealing)
  }

  /// Encrypts `plain` into `sealed`, which is `icvLength` longer and may not overlap it, and appends the ICV.
  /// - Parameter iv: the 8 bytes of the IV as a number in network order (RFC 4106 §3.1); the salt is the key's.
  @inline(__always)
  package borrowing func seal(iv: UInt64, _ data: AdditionalData, from plain: PacketBytes, to sealed: PacketBytes) {
    precondition(sealed.count == plain.count &+ AEAD.icvLength)
    switch key {
    case .openSSL(let key): key.seal(iv: iv, data, from: plain, to: sealed)
    #if CULVERT_IPSEC_MB
      case .multiBufferGCM(let key): key.seal(iv: iv, data, from: plain, to: sealed)
      case .multiBufferChaCha20(let key): key.seal(iv: iv, data, from: plain, to: sealed)
    #endif
    case .leftOut:
      sealed.copy(plain, to: 0)
      sealed.store64(0, plain.count)
      sealed.store64(0, plain.count &+ 8)
    }
  }

  /// Decrypts in place; `sealed` ends in the ICV. False, with the bytes then undefined, when it does not match,
  /// or when `sealed` is too short to have one.
  @inline(__always)
  package borrowing func open(iv: UInt64, _ data: AdditionalData, inPlace sealed: PacketBytes) -> Bool {
    guard sealed.count >= AEAD.icvLength else { return false }
    switch key {
    case .openSSL(let key): return key.open(iv: iv, data, inPlace: sealed)
    #if CULVERT_IPSEC_MB
      case .multiBufferGCM(let key): return key.open(iv: iv, data, inPlace: sealed)
      case .multiBufferChaCha20(let key): return key.open(iv: iv, data, inPlace: sealed)
    #endif
    case .leftOut: return true
    }
  }
}

extension AEAD {
  /// Has the processor fetch what is needed of the key for a packet of `length` bytes.
  @inline(__always)
  borrowing func prefetch(length: Int) {
    switch key {
    #if CULVERT_IPSEC_MB
      case .multiBufferGCM(let key): key.prefetch(length: length)
    #endif
    default: break
    }
  }
}

/// One expanded key, in the form its library wants.
enum EngineKey: ~Copyable {
  case openSSL(OpenSSLKey)
  #if CULVERT_IPSEC_MB
    case multiBufferGCM(MultiBufferGCMKey)
    case multiBufferChaCha20(MultiBufferChaCha20Key)
  #endif
  case leftOut

  init(_ cipher: Cipher, key: KeyMaterial, sealing: Sealing) {
    switch (sealing, cipher) {
    case (.by(.openSSL), _): self = .openSSL(OpenSSLKey(cipher, key: key))
    #if CULVERT_IPSEC_MB
      case (.by(.multiBuffer), .chacha20Poly1305): self = .multiBufferChaCha20(MultiBufferChaCha20Key(key))
      case (.by(.multiBuffer), _): self = .multiBufferGCM(MultiBufferGCMKey(cipher, key: key))
    #else
      case (.by(.multiBuffer), _): preconditionFailure("this build has no multi-buffer library")
    #endif
    case (.leftOut, _): self = .leftOut
    }
  }
}

/// The 12 bytes salt ‖ IV as they stand in memory (RFC 4106 §4, RFC 7634 §2).
struct Nonce: BitwiseCopyable {
  private var words: (UInt32, UInt32, UInt32)

  /// - Parameter salt: four bytes as they stand in memory.
  @inline(__always) init(salt: UInt32, iv: UInt64) {
    words = (salt, UInt32(truncatingIfNeeded: iv >> 32).bigEndian, UInt32(truncatingIfNeeded: iv).bigEndian)
  }
}
