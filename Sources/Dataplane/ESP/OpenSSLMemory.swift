import COpenSSL
import Glibc
import PacketIO

/// Has libcrypto keep all it allocates where keys are kept, in memory that is neither swapped nor dumped, and zeroes what
/// it gives back: its contexts hold key schedules, and what it derives keys with holds secrets.
///
/// For programs: it is the whole process's libcrypto.
package enum OpenSSLMemory {
  /// Call it before anything uses libcrypto.
  /// - Returns: false: something has used it, so it goes on as it did.
  @discardableResult
  package static func protect() -> Bool {
    unsafe CRYPTO_set_mem_functions(
      { size, _, _ in unsafe OpenSSLMemory.allocate(size) },
      { old, size, _, _ in unsafe OpenSSLMemory.reallocate(old, size) },
      { block, _, _ in unsafe OpenSSLMemory.free(block) }) == 1
  }

  /// In front of each block: how long it is, and what keeps the block aligned for anything.
  private static let head = 16

  @unsafe private static func allocate(_ size: Int) -> UnsafeMutableRawPointer? {
    guard size > 0 else { return nil }
    let block = unsafe allocateState(bytes: head + size)
    unsafe block.storeBytes(of: size, as: Int.self)
    return unsafe block + head
  }

  @unsafe private static func reallocate(_ old: UnsafeMutableRawPointer?, _ size: Int) -> UnsafeMutableRawPointer? {
    let new = unsafe allocate(size)
    if let old = unsafe old, let new = unsafe new {
      unsafe new.copyMemory(from: old, byteCount: min(size, (old - head).load(as: Int.self)))
    }
    if unsafe size == 0 || new != nil { unsafe free(old) }
    return unsafe new
  }

  @unsafe private static func free(_ block: UnsafeMutableRawPointer?) {
    guard let block = unsafe block else { return }
    let whole = unsafe block - head
    let bytes = unsafe head + whole.load(as: Int.self)
    unsafe explicit_bzero(whole, bytes)
    unsafe freeState(whole, bytes: bytes)
  }
}
