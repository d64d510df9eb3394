import COpenSSL
import PacketIO

/// A key in an OpenSSL 3 cipher context, which is keyed once and gets only an IV for each packet.
@safe struct OpenSSLKey: ~Copyable {
  private let context: OpaquePointer
  private let salt: UInt32

  /// - Parameter key: `cipher.keyMaterialLength` bytes.
  init(_ cipher: Cipher, key: KeyMaterial) {
    guard let algorithm = unsafe Algorithms.shared[cipher], let context = unsafe EVP_CIPHER_CTX_new() else {
      preconditionFailure("OpenSSL has no \(cipher.rawValue) or no memory")
    }
    let keyed = unsafe key.withBytes { bytes in
      unsafe EVP_EncryptInit_ex(context, algorithm, nil, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), nil)
    }
    precondition(keyed == 1, "OpenSSL refuses a key of \(cipher.rawValue)")
    unsafe self.context = unsafe context
    salt = key.salt(cipher)
  }

  // Overwrites the key schedule before it frees it.
  deinit { unsafe EVP_CIPHER_CTX_free(context) }

  static func supports(_ cipher: Cipher) -> Bool { unsafe Algorithms.shared[cipher] != nil }

  borrowing func seal(iv: UInt64, _ data: AdditionalData, from plain: PacketBytes, to sealed: PacketBytes) {
    var nonce = Nonce(salt: salt, iv: iv)
    var data = data
    var written: Int32 = 0
    let context = unsafe self.context
    let source = unsafe plain.pointer.assumingMemoryBound(to: UInt8.self)
    let target = unsafe sealed.pointer.assumingMemoryBound(to: UInt8.self)
    let prepared = unsafe withUnsafeBytes(of: &nonce) { nonce in
      unsafe EVP_EncryptInit_ex(context, nil, nil, nil, nonce.baseAddress?.assumingMemoryBound(to: UInt8.self))
    }
    let count = Int32(data.count)
    let authenticated = unsafe withUnsafeBytes(of: &data.words) { words in
      unsafe EVP_EncryptUpdate(context, nil, &written, words.baseAddress?.assumingMemoryBound(to: UInt8.self), count)
    }
    let done =
      unsafe prepared & authenticated
      & EVP_EncryptUpdate(context, target, &written, source, Int32(plain.count))
      & EVP_EncryptFinal_ex(context, target + plain.count, &written)
      & EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, Int32(AEAD.icvLength), target + plain.count)
    // No input can make these fail; going on would send what was never encrypted.
    precondition(done == 1, "OpenSSL failed to seal a packet")
  }

  borrowing func open(iv: UInt64, _ data: AdditionalData, inPlace sealed: PacketBytes) -> Bool {
    var nonce = Nonce(salt: salt, iv: iv)
    var data = data
    var written: Int32 = 0
    let context = unsafe self.context
    let length = sealed.count &- AEAD.icvLength
    let bytes = unsafe sealed.pointer.assumingMemoryBound(to: UInt8.self)
    let prepared = unsafe withUnsafeBytes(of: &nonce) { nonce in
      unsafe EVP_DecryptInit_ex(context, nil, nil, nil, nonce.baseAddress?.assumingMemoryBound(to: UInt8.self))
    }
    let count = Int32(data.count)
    let authenticated = unsafe withUnsafeBytes(of: &data.words) { words in
      unsafe EVP_DecryptUpdate(context, nil, &written, words.baseAddress?.assumingMemoryBound(to: UInt8.self), count)
    }
    let decrypted =
      unsafe prepared & authenticated
      & EVP_DecryptUpdate(context, bytes, &written, bytes, Int32(length))
      & EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, Int32(AEAD.icvLength), bytes + length)
    // The last step compares the ICV, in constant time.
    return unsafe decrypted == 1 && EVP_DecryptFinal_ex(context, bytes + length, &written) == 1
  }
}

/// The ciphers' implementations, fetched from OpenSSL's providers once: a fetch takes locks and string compares.
@safe private struct Algorithms: Sendable {
  // Set once, and never freed; OpenSSL lets threads share them.
  private nonisolated(unsafe) let aes128GCM: OpaquePointer?
  private nonisolated(unsafe) let aes256GCM: OpaquePointer?
  private nonisolated(unsafe) let chacha20Poly1305: OpaquePointer?

  static let shared = Algorithms()

  private init() {
    unsafe aes128GCM = unsafe EVP_CIPHER_fetch(nil, "AES-128-GCM", nil)
    unsafe aes256GCM = unsafe EVP_CIPHER_fetch(nil, "AES-256-GCM", nil)
    unsafe chacha20Poly1305 = unsafe EVP_CIPHER_fetch(nil, "ChaCha20-Poly1305", nil)
  }

  subscript(_ cipher: Cipher) -> OpaquePointer? {
    switch cipher {
    case .aes128GCM: unsafe aes128GCM
    case .aes256GCM: unsafe aes256GCM
    case .chacha20Poly1305: unsafe chacha20Poly1305
    }
  }
}
