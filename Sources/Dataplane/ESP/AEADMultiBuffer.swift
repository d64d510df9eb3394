#if CULVERT_IPSEC_MB
  import CIPsecMB
  import Glibc
  import PacketIO

  /// Intel's multi-buffer library, set up for this CPU once a process.
  ///
  /// Only its direct functions are used, one packet a call: they work on the caller's key and context alone, so
  /// threads with keys of their own share the manager, from which nothing but function pointers is read.
  enum MultiBufferLibrary {
    static var isUsable: Bool { unsafe manager != nil }

    fileprivate nonisolated(unsafe) static let manager: UnsafeMutablePointer<IMB_MGR>? = {
      guard imb_get_version() >= CULVERT_IMB_VERSION, let manager = unsafe alloc_mb_mgr(0) else { return nil }
      unsafe init_mb_mgr_auto(manager, nil)
      let needed = CULVERT_IMB_FAST_FEATURES
      guard unsafe imb_get_errno(manager) == 0, unsafe manager.pointee.features & needed == needed else {
        unsafe free_mb_mgr(manager)
        return nil
      }
      return unsafe manager
    }()
  }

  /// Memory of an expanded key, which the library wants on a 64-byte boundary; zeroed at the end.
  @safe private struct KeyMemory: ~Copyable {
    @unsafe let base: UnsafeMutableRawPointer
    // With four bytes, an association's key and numbers share a cache line.
    let length: UInt32

    init(_ length: Int) {
      self.length = UInt32(length)
      unsafe base = allocateState(bytes: length)
      unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: length)
    }

    deinit {
      unsafe explicit_bzero(base, Int(length))
      unsafe freeState(base, bytes: Int(length))
    }
  }

  /// An AES-GCM key of either length.
  @safe struct MultiBufferGCMKey: ~Copyable {
    /// As much of the library's structure as this processor's functions use: some have a sixth of the powers of the hash
    /// key that others have, and they come first.
    private let memory: KeyMemory
    private let salt: UInt32
    private let encrypt: aes_gcm_enc_dec_t
    private let decrypt: aes_gcm_enc_dec_t

    /// - Parameter key: `cipher.keyMaterialLength` bytes.
    init(_ cipher: Cipher, key: KeyMaterial) {
      guard let manager = unsafe MultiBufferLibrary.manager else {
        preconditionFailure("the multi-buffer library does not suit this CPU")
      }
      salt = key.salt(cipher)
      let whole = KeyMemory(MemoryLayout<gcm_key_data>.size)
      let expanded = unsafe whole.base.assumingMemoryBound(to: gcm_key_data.self)
      let short = cipher == .aes128GCM
      unsafe key.withBytes { bytes in
        unsafe (short ? manager.pointee.gcm128_pre : manager.pointee.gcm256_pre)(bytes.baseAddress, expanded)
      }
      memory = KeyMemory(Int(unsafe culvert_gcm_powers_end(expanded)))
      unsafe memory.base.copyMemory(from: whole.base, byteCount: Int(memory.length))
      unsafe encrypt = short ? manager.pointee.gcm128_enc : manager.pointee.gcm256_enc
      unsafe decrypt = short ? manager.pointee.gcm128_dec : manager.pointee.gcm256_dec
    }

    @inline(__always)
    borrowing func seal(iv: UInt64, _ data: AdditionalData, from plain: PacketBytes, to sealed: PacketBytes) {
      unsafe run(encrypt, iv, data, plain.pointer, plain.count, to: sealed.pointer, icv: sealed.pointer + plain.count)
    }

    @inline(__always)
    borrowing func open(iv: UInt64, _ data: AdditionalData, inPlace sealed: PacketBytes) -> Bool {
      let length = sealed.count &- AEAD.icvLength
      var icv: ICV = (0, 0)
      unsafe run(decrypt, iv, data, sealed.pointer, length, to: sealed.pointer, icv: &icv)
      return matches(icv, sealed, at: length)
    }

    @inline(__always) private borrowing func run(
      _ function: aes_gcm_enc_dec_t, _ iv: UInt64, _ data: AdditionalData, _ source: UnsafeMutableRawPointer,
      _ count: Int, to target: UnsafeMutableRawPointer, icv: UnsafeMutableRawPointer
    ) {
      var nonce = Nonce(salt: salt, iv: iv)
      var words = data.words
      unsafe culvert_gcm(
        function, memory.base, target, source, UInt64(count), &nonce, &words, UInt64(data.count), icv)
    }

    @inline(__always)
    borrowing func prefetch(length: Int) {
      unsafe culvert_gcm_prefetch(memory.base, UInt64(length), UInt64(memory.length))
    }
  }

  /// A ChaCha20-Poly1305 key. The library's job interface is faster by a seventh at 1400 bytes, but would need a
  /// manager of 200 KB for each thread.
  @safe struct MultiBufferChaCha20Key: ~Copyable {
    /// Of a packet's intermediate state, behind the key.
    private static let contextOffset = 64
    private let memory: KeyMemory
    private let salt: UInt32
    private let manager: UnsafePointer<IMB_MGR>

    /// - Parameter key: 36 bytes.
    init(_ key: KeyMaterial) {
      guard let manager = unsafe MultiBufferLibrary.manager else {
        preconditionFailure("the multi-buffer library does not suit this CPU")
      }
      let length = Cipher.chacha20Poly1305.keyLength
      memory = KeyMemory(
        MultiBufferChaCha20Key.contextOffset + MemoryLayout<chacha20_poly1305_context_data>.size)
      salt = key.salt(.chacha20Poly1305)
      unsafe self.manager = unsafe UnsafePointer(manager)
      unsafe key.withBytes { bytes in
        guard let bytes = bytes.baseAddress else { return }
        unsafe memory.base.copyMemory(from: bytes, byteCount: length)
      }
    }

    @inline(__always)
    borrowing func seal(iv: UInt64, _ data: AdditionalData, from plain: PacketBytes, to sealed: PacketBytes) {
      unsafe run(
        manager.pointee.chacha20_poly1305_enc_update, iv, data, plain.pointer, plain.count, to: sealed.pointer,
        icv: sealed.pointer + plain.count)
    }

    @inline(__always)
    borrowing func open(iv: UInt64, _ data: AdditionalData, inPlace sealed: PacketBytes) -> Bool {
      let length = sealed.count &- AEAD.icvLength
      var icv: ICV = (0, 0)
      unsafe run(
        manager.pointee.chacha20_poly1305_dec_update, iv, data, sealed.pointer, length, to: sealed.pointer, icv: &icv)
      return matches(icv, sealed, at: length)
    }

    @inline(__always) private borrowing func run(
      _ update: chacha_poly_enc_dec_update_t, _ iv: UInt64, _ data: AdditionalData, _ source: UnsafeMutableRawPointer,
      _ count: Int, to target: UnsafeMutableRawPointer, icv: UnsafeMutableRawPointer
    ) {
      var nonce = Nonce(salt: salt, iv: iv)
      var words = data.words
      let context = unsafe (memory.base + MultiBufferChaCha20Key.contextOffset).assumingMemoryBound(
        to: chacha20_poly1305_context_data.self)
      unsafe manager.pointee.chacha20_poly1305_init(memory.base, context, &nonce, &words, UInt64(data.count))
      unsafe update(memory.base, context, target, source, UInt64(count))
      unsafe manager.pointee.chacha20_poly1305_finalize(context, icv, UInt64(AEAD.icvLength))
    }
  }

  private typealias ICV = (UInt64, UInt64)

  /// Constant time: every bit is looked at, and the only branch is the caller's on the result.
  @inline(__always) private func matches(_ icv: ICV, _ sealed: PacketBytes, at offset: Int) -> Bool {
    let first = icv.0 ^ sealed.loadNative(offset, as: UInt64.self)
    let second = icv.1 ^ sealed.loadNative(offset &+ 8, as: UInt64.self)
    return first | second == 0
  }
#endif
