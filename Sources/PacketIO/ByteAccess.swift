public import Glibc

/// A bounds-checked window on packet memory.
///
/// Every access is checked against `count`, so no input can reach outside the window. What the type does not
/// check is lifetime: a window is valid while its buffer is held, which `BufferPool` counts. Integers are in
/// network byte order unless the name says `native`.
@safe @frozen public struct PacketBytes: BitwiseCopyable {
  @usableFromInline let base: UnsafeMutableRawPointer
  public let count: Int

  @inlinable @unsafe public init(_ base: UnsafeMutableRawPointer, count: Int) {
    precondition(count >= 0)
    unsafe self.base = unsafe base
    self.count = count
  }

  /// The address of the first byte, for system calls and ciphers; valid while the buffer is held.
  @inlinable @unsafe public var pointer: UnsafeMutableRawPointer { unsafe base }

  /// One byte.
  @inlinable public subscript(_ offset: Int) -> UInt8 {
    get {
      precondition(UInt(bitPattern: offset) < UInt(bitPattern: count))
      return unsafe base.load(fromByteOffset: offset, as: UInt8.self)
    }
    nonmutating set {
      precondition(UInt(bitPattern: offset) < UInt(bitPattern: count))
      unsafe base.storeBytes(of: newValue, toByteOffset: offset, as: UInt8.self)
    }
  }

  /// Integers in network byte order, at any alignment.
  @inlinable public func load16(_ offset: Int) -> UInt16 {
    check(offset, 2)
    return unsafe UInt16(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }
  @inlinable public func load32(_ offset: Int) -> UInt32 {
    check(offset, 4)
    return unsafe UInt32(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
  @inlinable public func load64(_ offset: Int) -> UInt64 {
    check(offset, 8)
    return unsafe UInt64(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
  @inlinable public func store16(_ value: UInt16, _ offset: Int) {
    check(offset, 2)
    unsafe base.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }
  @inlinable public func store32(_ value: UInt32, _ offset: Int) {
    check(offset, 4)
    unsafe base.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }
  @inlinable public func store64(_ value: UInt64, _ offset: Int) {
    check(offset, 8)
    unsafe base.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt64.self)
  }
  /// Host byte order, as virtio headers and kernel structures have it.
  @inlinable public func loadNative<T: BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
    check(offset, MemoryLayout<T>.size)
    return unsafe base.loadUnaligned(fromByteOffset: offset, as: type)
  }
  @inlinable public func storeNative<T: BitwiseCopyable>(_ value: T, _ offset: Int) {
    check(offset, MemoryLayout<T>.size)
    unsafe base.storeBytes(of: value, toByteOffset: offset, as: T.self)
  }

  /// The window from `offset`, `length` bytes long.
  @inlinable public func slice(_ offset: Int, _ length: Int) -> PacketBytes {
    check(offset, length)
    return unsafe PacketBytes(base + offset, count: length)
  }
  @inlinable public func dropFirst(_ n: Int) -> PacketBytes { slice(n, count &- n) }

  /// Copies all of `source` to `offset`. The two may overlap.
  @inlinable public func copy(_ source: PacketBytes, to offset: Int) {
    check(offset, source.count)
    unsafe (base + offset).copyMemory(from: source.base, byteCount: source.count)
  }
  public func copy(_ source: [UInt8], to offset: Int) {
    check(offset, source.count)
    unsafe source.withUnsafeBytes {
      unsafe (base + offset).copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(base), byteCount: source.count)
    }
  }
  public func array() -> [UInt8] { unsafe [UInt8](UnsafeRawBufferPointer(start: base, count: count)) }

  /// Same length and same bytes. Not for secrets: the time depends on them.
  @inlinable public func equals(_ other: PacketBytes) -> Bool {
    guard count == other.count else { return false }
    return unsafe memcmp(base, other.base, count) == 0
  }

  @inlinable @inline(__always) func check(_ offset: Int, _ length: Int) {
    // Both are non-negative and their sum stays within: one comparison each, no overflow possible.
    precondition(offset >= 0 && length >= 0 && offset <= count && length <= count &- offset)
  }
}
