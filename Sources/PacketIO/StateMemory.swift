import Glibc
import Synchronization

/// Memory of the small values that outlive packets: state of peers and associations, keys, replay windows.
///
/// Blocks are whole cache lines, and those allocated one after the other lie side by side, so that all of one peer is
/// on one or two pages. With many peers the pages are huge, where the machine has them: small ones would be more than
/// the processor remembers the places of. Blocks that are given back serve the next of their size; what was once taken
/// from the system stays, so the memory is bounded by the most that was ever in use.
///
/// Keys are here, and their schedules, so none of it is swapped or gets into a core.
@usableFromInline enum StateMemory {
  private static let line = 64
  /// Bytes; larger blocks are the system's.
  #if CULVERT_FUZZ
    // The address sanitizer sees what is used after it was given back only where the system gets it.
    private static let largest = 0
  #else
    private static let largest = 4096
  #endif
  private static let hugePage = 2 << 20

  struct Blocks: ~Copyable {
    /// The first free block of each number of lines, 0 for none; its first word leads to the next.
    var free = InlineArray<65, UInt>(repeating: 0)
    var next = UInt(0)
    var end = UInt(0)
    var taken = 0
    /// Why the last piece that could not be locked was not; 0: all are.
    var lockFailure: Int32 = 0
  }

  /// Why some of the memory can be swapped; nil: none can.
  static var lockFailure: Int32? {
    blocks.withLock { $0.lockFailure == 0 ? nil : $0.lockFailure }
  }

  private static let blocks = Mutex(Blocks())

  @unsafe @usableFromInline static func allocate(bytes: Int) -> UnsafeMutableRawPointer {
    let lines = (max(bytes, 1) + line - 1) / line
    guard lines * line <= largest else { return .allocate(byteCount: bytes, alignment: line) }
    let address = blocks.withLock { blocks in
      if blocks.free[lines] != 0 {
        let block = blocks.free[lines]
        blocks.free[lines] = unsafe UnsafeRawPointer(bitPattern: block)?.load(as: UInt.self) ?? 0
        return block
      }
      if blocks.end - blocks.next < UInt(lines * line) { refill(&blocks) }
      defer { blocks.next += UInt(lines * line) }
      return blocks.next
    }
    guard let block = unsafe UnsafeMutableRawPointer(bitPattern: address) else { preconditionFailure("no block") }
    return unsafe block
  }

  /// - Parameter bytes: as they were allocated.
  @unsafe @usableFromInline static func free(_ block: UnsafeMutableRawPointer, bytes: Int) {
    let lines = (max(bytes, 1) + line - 1) / line
    guard lines * line <= largest else { return unsafe block.deallocate() }
    let address = UInt(bitPattern: block)
    blocks.withLock { blocks in
      unsafe UnsafeMutableRawPointer(bitPattern: address)?.storeBytes(of: blocks.free[lines], as: UInt.self)
      blocks.free[lines] = address
    }
  }

  /// The rest of the piece before is lost: less than a block of the largest size.
  private static func refill(_ blocks: inout Blocks) {
    // Small pieces at first: a gateway with few peers shall not take two megabytes for them.
    let size = blocks.taken < hugePage ? hugePage / 32 : hugePage
    let piece = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: size)
    if size == hugePage { _ = unsafe madvise(piece, size, MADV_HUGEPAGE) }
    unsafe madvise(piece, size, MADV_DONTDUMP)
    if unsafe mlock(piece, size) != 0 { blocks.lockFailure = errno }
    blocks.next = UInt(bitPattern: piece)
    blocks.end = blocks.next + UInt(size)
    blocks.taken += size
  }
}

/// Why the kernel may write keys to its swap space; nil where it may not.
package var keySwapReason: SystemError? {
  StateMemory.lockFailure.map {
    SystemError(
      "lock memory with keys in it, so that it is not swapped", errno: $0,
      remedy: "raise the limit of locked memory (LimitMEMLOCK=infinity in the unit, ulimit -l)")
  }
}

/// Memory for a key of a cipher, of `bytes` bytes, on a cache line's boundary; not zeroed.
@unsafe public func allocateState(bytes: Int) -> UnsafeMutableRawPointer {
  unsafe StateMemory.allocate(bytes: bytes)
}

/// Gives back what `allocateState` gave for as many bytes. It may be given to others at once: wipe a key before.
@unsafe public func freeState(_ memory: UnsafeMutableRawPointer, bytes: Int) {
  unsafe StateMemory.free(memory, bytes: bytes)
}
