import PacketIO

extension KeyMaterial {
  /// The four bytes behind the key proper, as they stand in memory.
  func salt(_ cipher: Cipher) -> UInt32 {
    unsafe withBytes { unsafe $0.loadUnaligned(fromByteOffset: cipher.keyLength, as: UInt32.self) }
  }
}
