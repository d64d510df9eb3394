import PacketIO

/// The additional authenticated data of an ESP packet (RFC 4106 §5): SPI ‖ sequence, or with extended sequence
/// numbers SPI ‖ high half ‖ low half; as it stands in memory, in network byte order.
struct AdditionalData: BitwiseCopyable {
  var words: (UInt32, UInt32, UInt32)
  /// 8 or 12 bytes.
  var count: Int

  init(spi: UInt32, sequence: UInt64, extended: Bool) {
    let low = UInt32(truncatingIfNeeded: sequence).bigEndian
    let high = UInt32(truncatingIfNeeded: sequence >> 32).bigEndian
    words = extended ? (spi.bigEndian, high, low) : (spi.bigEndian, low, 0)
    count = extended ? 12 : 8
  }
}

/// An expanded key of one cipher, and the library that computes with it.
struct AEAD: ~Copyable {
  /// Bytes of the integrity check value.
  static let icvLength = 16

  let engine: CipherEngine
  let cipher: Cipher

  /// - Parameter key: key and salt, `cipher.keyMaterialLength` bytes.
  init(_ cipher: Cipher, key: KeyMaterial, engine: CipherEngine) { fatalError() }

  /// Encrypts `plain` into `sealed`, which is `icvLength` longer and may not overlap it, and appends the ICV.
  /// - Parameter iv: the 8 bytes of the IV as a number in network order (RFC 4106 §3.1); the salt is the key's.
  borrowing func seal(iv: UInt64, _ data: AdditionalData, from plain: PacketBytes, to sealed: PacketBytes) { fatalError() }

  /// Decrypts in place; `sealed` ends in the ICV. False, with the bytes then undefined, when it does not match.
  borrowing func open(iv: UInt64, _ data: AdditionalData, inPlace sealed: PacketBytes) -> Bool { fatalError() }
}
