import PacketIO
import Testing

/// Packet memory: buffers counted by reference, windows that nothing gets out of, arrays that do not grow.
@Suite struct MemoryTests {
  // MARK: Keys

  /// Where a key was that nobody has any more, nothing of it is left, whoever has the memory now.
  @Test(arguments: [16, 20, 32, 48, 2048]) func releasedKeysAreZero(count: Int) {
    let pattern: UInt8 = 0xA5
    func place() -> UInt {
      let key = KeyMaterial([UInt8](repeating: pattern, count: count))
      return unsafe key.withBytes { bytes in
        #expect(unsafe bytes.allSatisfy { $0 == pattern })
        return UInt(bitPattern: bytes.baseAddress)
      }
    }
    let left = unsafe UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: place()), count: count)
    // A byte of somebody else's may be the same by chance, and four of them are not.
    #expect(unsafe Array(left).split { $0 != pattern }.allSatisfy { $0.count < 4 })
  }

  // MARK: BufferPool

  @Test func buffersAreHandedOutOnceAndComeBack() {
    let pool = BufferPool(count: 5)
    #expect(pool.available == 5 && pool.count == 5)
    var held: [BufferID] = []
    while let id = pool.take() { held.append(id) }
    #expect(Set(held).count == 5 && pool.available == 0)
    #expect(pool.take() == nil)
    pool.release(held[3])
    // The last one returned is the warmest.
    pool.release(held[1])
    #expect(pool.take() == held[1])
    #expect(pool.take() == held[3])
  }

  @Test func aBufferIsFreeWhenItsLastReferenceGoes() throws {
    let pool = BufferPool(count: 1)
    let id = try #require(pool.take())
    pool.retain(id)
    pool.retain(id)
    pool.release(id)
    pool.release(id)
    #expect(pool.available == 0)
    pool.release(id)
    #expect(pool.available == 1)
    // References of the one before do not count for the next.
    #expect(pool.take() == id)
    pool.release(id)
    #expect(pool.available == 1)
  }

  /// Against a plain dictionary, at random.
  @Test(arguments: 1...3 as ClosedRange<UInt64>)
  func referencesAreCounted(seed: UInt64) {
    var numbers = Numbers(state: seed)
    let pool = BufferPool(count: 12)
    var references: [BufferID: Int] = [:]
    for _ in 0..<5000 {
      switch Int.random(in: 0..<3, using: &numbers) {
      case 0:
        let id = pool.take()
        #expect((id == nil) == (references.count == 12))
        if let id { #expect(references.updateValue(1, forKey: id) == nil, "a buffer that is in use was handed out") }
      case 1:
        guard let id = references.keys.sorted().randomElement(using: &numbers) else { continue }
        pool.retain(id)
        references[id]! += 1
      default:
        guard let id = references.keys.sorted().randomElement(using: &numbers) else { continue }
        pool.release(id)
        references[id]! -= 1
        if references[id] == 0 { references[id] = nil }
      }
      #expect(pool.available == 12 - references.count)
    }
  }

  @Test func buffersDoNotOverlap() {
    let pool = BufferPool(count: 3)
    for id in 0..<3 as Range<BufferID> {
      pool.bytes(id).copy([UInt8](repeating: UInt8(id) + 1, count: BufferPool.bufferSize), to: 0)
    }
    for id in 0..<3 as Range<BufferID> {
      let bytes = pool.bytes(id).array()
      #expect(bytes.count == BufferPool.bufferSize && bytes.allSatisfy { $0 == UInt8(id) + 1 })
    }
  }

  @Test func aSecondReleaseIsFatal() async {
    await #expect(processExitsWith: .failure) {
      let pool = BufferPool(count: 2)
      let id = pool.take()!
      pool.release(id)
      pool.release(id)
    }
  }

  @Test func aBufferBeyondThePoolIsFatal() async {
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(3) }
  }

  // MARK: PacketBytes

  @Test func integersAreInNetworkOrder() {
    let bytes = packetMemory.bytes(1).slice(3, 16)
    bytes.store64(0x0102_0304_0506_0708, 1)
    #expect(bytes.slice(1, 8).array() == [1, 2, 3, 4, 5, 6, 7, 8])
    #expect(bytes.load16(2) == 0x0203 && bytes.load32(3) == 0x0304_0506 && bytes.load64(1) == 0x0102_0304_0506_0708)
    bytes.store16(0xAABB, 0)
    bytes.store32(0xCCDD_EEFF, 12)
    #expect(bytes[0] == 0xAA && bytes[1] == 0xBB && bytes.slice(12, 4).array() == [0xCC, 0xDD, 0xEE, 0xFF])
    bytes.storeNative(UInt32(0x0102_0304), 4)
    #expect(bytes.loadNative(4, as: UInt32.self) == 0x0102_0304)
    #expect(bytes.slice(4, 4).array() == [4, 3, 2, 1])
  }

  @Test func copiesMayOverlap() {
    let bytes = packetMemory.bytes(2).slice(0, 10)
    bytes.copy([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], to: 0)
    bytes.copy(bytes.slice(0, 6), to: 2)
    #expect(bytes.array() == [0, 1, 0, 1, 2, 3, 4, 5, 8, 9])
    bytes.copy([], to: 10)
    #expect(bytes.slice(10, 0).array() == [] && bytes.dropFirst(10).count == 0)
    #expect(bytes.slice(0, 2).equals(bytes.slice(2, 2)) && !bytes.slice(0, 2).equals(bytes.slice(1, 2)))
    #expect(!bytes.slice(0, 2).equals(bytes.slice(0, 3)))
  }

  @Test func nothingReachesOutsideOfAWindow() async {
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(0).slice(0, 8)[8] }
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(0).slice(0, 8)[-1] }
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(0).slice(0, 8).load16(7) }
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(0).slice(0, 8).load64(Int.max - 3) }
    await #expect(processExitsWith: .failure) { packetMemory.bytes(0).slice(0, 8).store32(1, 5) }
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(0).slice(0, 8).slice(4, 5) }
    await #expect(processExitsWith: .failure) { _ = packetMemory.bytes(0).slice(0, 8).slice(4, -1) }
    await #expect(processExitsWith: .failure) { packetMemory.bytes(0).slice(0, 8).copy([1, 2], to: 7) }
    await #expect(processExitsWith: .failure) {
      var array = FixedArray<Int>(capacity: 1)
      for number in 0..<2 { array.append(number) }
    }
  }

  // MARK: FixedArray

  @Test func anArrayThatIsFullRefuses() {
    var array = FixedArray<Int>(capacity: 2)
    #expect(array.isEmpty && !array.isFull && array.popLast() == nil)
    array.append(1)
    let (fits, isTaken) = (array.tryAppend(2), array.tryAppend(3))
    #expect(fits && array.isFull && !isTaken && array.count == 2)
    array[0] = 10
    #expect(array[0] == 10 && array[1] == 2)
    #expect(array.popLast() == 2 && array.popLast() == 10 && array.popLast() == nil)
    array.append(5)
    array.removeAll()
    #expect(array.isEmpty && array.capacity == 2)
    let none = FixedArray<Int>(capacity: 0)
    #expect(none.isEmpty && none.isFull)
  }

  @Test func elementsAreReleasedOnce() {
    final class Element {
      let count: Count
      init(_ count: Count) {
        self.count = count
        count.alive += 1
      }
      deinit { count.alive -= 1 }
    }
    final class Count { var alive = 0 }
    let count = Count()
    do {
      var array = FixedArray<Element>(capacity: 4)
      for _ in 0..<6 { _ = array.tryAppend(Element(count)) }
      #expect(count.alive == 4)
      _ = array.popLast()
      #expect(count.alive == 3)
      array[0] = Element(count)
      #expect(count.alive == 3)
      array.removeAll()
      #expect(count.alive == 0)
      array.append(Element(count))
    }
    #expect(count.alive == 0)
  }

  @Test func anIndexBeyondTheCountIsFatal() async {
    await #expect(processExitsWith: .failure) {
      var array = FixedArray<Int>(capacity: 4)
      array.append(1)
      _ = array[1]
    }
  }

  /// Below and above the size from which a table is a mapping of its own.
  @Test(arguments: [1, 1000, 300_000])
  func zeroesAreZeroes(count: Int) {
    var array = FixedArray<UInt64>(zeroes: count)
    #expect(array.count == count && array.isFull)
    #expect((0..<count).allSatisfy { array[$0] == 0 })
    array[count - 1] = 7
    #expect(array[count - 1] == 7)
  }
}

/// A window does not keep its pool alive; this one always is.
private nonisolated(unsafe) let packetMemory = BufferPool(count: 3)

/// SplitMix64.
struct Numbers: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}
