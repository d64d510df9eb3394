public import CLinux
import Glibc

/// An array whose memory is allocated once: it never grows (invariant 5).
@safe @frozen public struct FixedArray<Element>: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Element>
  public let capacity: Int
  @usableFromInline var used: Int
  @inlinable public var count: Int { used }

  @inlinable public init(capacity: Int) {
    let memory = unsafe allocateTable(bytes: MemoryLayout<Element>.stride * max(capacity, 1))
    unsafe base = memory.bindMemory(to: Element.self, capacity: max(capacity, 1))
    self.capacity = capacity
    used = 0
  }

  /// Filled to its capacity with `value`.
  @inlinable public init(repeating value: Element, count: Int) {
    self.init(capacity: count)
    unsafe base.initialize(repeating: value, count: count)
    used = count
  }

  @inlinable deinit {
    unsafe base.deinitialize(count: used)
    unsafe freeTable(base, bytes: MemoryLayout<Element>.stride * max(capacity, 1))
  }

  /// Whether nothing is stored, or no more can be.
  @inlinable public var isEmpty: Bool { count == 0 }
  @inlinable public var isFull: Bool { count == capacity }

  /// The element at `index`, below `count`.
  @inlinable public subscript(_ index: Int) -> Element {
    @inline(__always) unsafeAddress {
      precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
      return unsafe UnsafePointer(base + index)
    }
    @inline(__always) unsafeMutableAddress {
      precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
      return unsafe base + index
    }
  }

  /// The element at `index`, below `count`, to be changed in place by whoever may not change the array.
  @inlinable package func reference(_ index: Int) -> StateReference<Element> {
    precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
    return unsafe StateReference(base + index)
  }

  /// For who knows that there is room.
  @inlinable public mutating func append(_ element: Element) {
    precondition(count < capacity, "a fixed array is full")
    unsafe (base + count).initialize(to: element)
    used &+= 1
  }

  /// False, and nothing stored, when full.
  @inlinable public mutating func tryAppend(_ element: Element) -> Bool {
    guard count < capacity else { return false }
    append(element)
    return true
  }

  /// Takes the last element out; nil when there is none.
  @inlinable public mutating func popLast() -> Element? {
    guard count > 0 else { return nil }
    used &-= 1
    return unsafe (base + used).move()
  }

  /// Forgets all elements; the memory stays.
  @inlinable public mutating func removeAll() {
    unsafe base.deinitialize(count: used)
    used = 0
  }

  /// Has the processor fetch the first bytes of the element, for whoever will need them soon; nothing for an index out
  /// of range.
  @inlinable @inline(__always) public func prefetch(_ index: Int, bytes: Int = MemoryLayout<Element>.stride) {
    guard UInt(bitPattern: index) < UInt(bitPattern: count) else { return }
    var offset = 0
    repeat {
      unsafe culvert_prefetch(UnsafeRawPointer(base + index) + offset)
      offset &+= 64
    } while offset < bytes
  }

  /// For system calls that take an array; valid while this value is.
  @inlinable @unsafe public var pointer: UnsafeMutablePointer<Element> { unsafe base }
}

extension FixedArray where Element: BitwiseCopyable {
  /// With the same elements, and the same room.
  @inlinable public init(copying other: borrowing FixedArray) {
    self.init(capacity: other.capacity)
    unsafe base.initialize(from: other.base, count: other.count)
    used = other.count
  }
}

extension FixedArray where Element: FixedWidthInteger {
  /// Filled to its capacity with zeroes. Of a large array a page takes memory only once something is written there.
  @inlinable public init(zeroes count: Int) {
    self.init(capacity: count)
    if !isMapped(MemoryLayout<Element>.stride * count) { unsafe base.initialize(repeating: 0, count: count) }
    used = count
  }
}

/// Tables from here on are mappings of their own, in bytes.
private let leastMapping = 1 << 20
/// And from here on they are laid on huge pages, where the machine has them: a table that is read at random places
/// costs more for finding its pages than for reading them. Smaller ones would only take memory that they never use.
private let leastHuge = 16 << 20

@usableFromInline func isMapped(_ bytes: Int) -> Bool { bytes >= leastMapping }

/// Memory for a table. It begins on a cache line, so that an element of a line's size never lies on two.
@usableFromInline func allocateTable(bytes: Int) -> UnsafeMutableRawPointer {
  guard isMapped(bytes) else { return unsafe StateMemory.allocate(bytes: bytes) }
  let memory = unsafe mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
  guard let memory = unsafe memory, unsafe memory != UnsafeMutableRawPointer(bitPattern: -1) else {
    fatalError("no memory for a table of \(bytes) bytes: configure a smaller one")
  }
  // Only advice: without it the table is slower, not wrong.
  if bytes >= leastHuge { _ = unsafe madvise(memory, bytes, MADV_HUGEPAGE) }
  return unsafe memory
}

@usableFromInline func freeTable(_ memory: UnsafeMutableRawPointer, bytes: Int) {
  if isMapped(bytes) { unsafe munmap(memory, bytes) } else { unsafe StateMemory.free(memory, bytes: bytes) }
}
