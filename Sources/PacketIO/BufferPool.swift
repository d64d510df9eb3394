import Glibc

/// A buffer's number in its pool.
public typealias BufferID = UInt16

/// Packet buffers of one worker: one mapping made at start, handed out by number, counted by reference.
///
/// Every buffer a worker touches (TUN reads, socket receives, sealed trains) comes from here, so the memory a
/// worker can use is `count × bufferSize` and no more (invariant 5). An empty pool is survived by its users: a
/// receive queue waits unarmed, a sealed packet is dropped and counted. Confined to the worker's thread.
@safe public final class BufferPool {
  /// Bytes of one buffer: a 64 KiB superpacket, the room in front of it for receive metadata, and some behind.
  /// Whole pages, so that small packets touch few of them.
  public static let bufferSize = 17 * 4096
  /// Bytes kept free in front of packet data that a buffer receives.
  public static let headroom = 128

  @usableFromInline struct State: ~Copyable {
    @usableFromInline var references: FixedArray<UInt16>
    @usableFromInline var free: FixedArray<BufferID>
  }

  @usableFromInline let base: UnsafeMutableRawPointer
  /// In a cell: one thread owns the pool, so a dynamic exclusivity check per packet would only cost.
  @usableFromInline let state: StateCell<State>
  public let count: Int

  /// - Parameter count: buffers, 1 to 65535.
  public init(count: Int) {
    precondition((1...0xFFFF).contains(count))
    self.count = count
    let length = count * BufferPool.bufferSize
    let memory = unsafe mmap(nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let memory = unsafe memory, unsafe memory != UnsafeMutableRawPointer(bitPattern: -1) else {
      fatalError("no memory for \(count) packet buffers (\(length) bytes): choose a smaller budget")
    }
    unsafe base = unsafe memory
    var free = FixedArray<BufferID>(capacity: count)
    for id in stride(from: count - 1, through: 0, by: -1) { free.append(BufferID(id)) }
    state = StateCell(State(references: FixedArray(repeating: 0, count: count), free: free))
  }

  deinit { unsafe munmap(base, count * BufferPool.bufferSize) }

  /// How many buffers nobody holds.
  @inlinable public var available: Int { state.reference.value.free.count }

  /// A buffer with one reference, the most recently returned first (its pages are warm); nil when all are held.
  @inlinable public func take() -> BufferID? {
    guard let id = state.reference.value.free.popLast() else { return nil }
    state.reference.value.references[Int(id)] = 1
    return id
  }

  /// Adds a reference, for one more user of the same bytes.
  @inlinable public func retain(_ id: BufferID) { state.reference.value.references[Int(id)] &+= 1 }

  /// Gives one reference back; with the last one the buffer is free again.
  @inlinable public func release(_ id: BufferID) {
    precondition(state.reference.value.references[Int(id)] > 0, "a packet buffer was released twice")
    state.reference.value.references[Int(id)] &-= 1
    if state.reference.value.references[Int(id)] == 0 { state.reference.value.free.append(id) }
  }

  /// The whole of a buffer.
  @inlinable public func bytes(_ id: BufferID) -> PacketBytes {
    precondition(Int(id) < count)
    return unsafe PacketBytes(base + Int(id) &* BufferPool.bufferSize, count: BufferPool.bufferSize)
  }
}
