public import CLinux

/// A value at a fixed address, owned by this object. The object is for lifetimes; a worker reaches the value
/// through a `StateReference`, which costs no reference counting and no exclusivity check.
@safe @usableFromInline package final class StateCell<Value: ~Copyable> {
  @usableFromInline let pointer: UnsafeMutablePointer<Value>

  package init(_ value: consuming Value) {
    // On a cache line's boundary, so that what lies together at a value's beginning is fetched together.
    let memory = unsafe StateMemory.allocate(bytes: MemoryLayout<Value>.size)
    unsafe pointer = memory.bindMemory(to: Value.self, capacity: 1)
    unsafe pointer.initialize(to: value)
  }

  deinit {
    unsafe pointer.deinitialize(count: 1)
    unsafe StateMemory.free(pointer, bytes: MemoryLayout<Value>.size)
  }

  /// Valid while this cell is.
  @inlinable package var reference: StateReference<Value> { unsafe StateReference(pointer) }
}

/// Reaches the value of a `StateCell` that somebody else keeps alive: tables hold these, their owner the cells.
/// Use from one thread only.
@safe @frozen @usableFromInline package struct StateReference<Value: ~Copyable>: BitwiseCopyable {
  @usableFromInline let pointer: UnsafeMutablePointer<Value>

  @inlinable @unsafe init(_ pointer: UnsafeMutablePointer<Value>) { unsafe self.pointer = unsafe pointer }

  /// The cell's value, in place.
  @inlinable package var value: Value {
    @inline(__always) unsafeAddress { unsafe UnsafePointer(pointer) }
    @inline(__always) nonmutating unsafeMutableAddress { unsafe pointer }
  }

  /// Has the processor fetch the first `bytes` of the value, for whoever will need them soon.
  @inlinable @inline(__always) package func prefetch(bytes: Int) {
    var offset = 0
    repeat {
      unsafe culvert_prefetch(UnsafeRawPointer(pointer) + offset)
      offset &+= 64
    } while offset < bytes
  }
}
