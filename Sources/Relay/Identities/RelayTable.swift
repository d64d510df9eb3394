import PacketIO

/// For whom a sealed packet is, by its SPI without the last four bits, which name a worker (RFC 9611 has the idea).
///
/// Open addressing with linear probing, of a fixed capacity. Whoever enrols chooses SPIs, so places are drawn by a
/// multiplier that nobody else knows.
struct RelayTable: ~Copyable {
  struct Row: BitwiseCopyable {
    /// Zero: it is free. No SPI below 256 is used (RFC 4303 §2.1), so none has it.
    var key: UInt32 = 0
    /// Whom it leads to.
    var side: Int32 = 0
  }

  /// Associations that fit.
  let capacity: Int
  private(set) var count = 0
  private var rows: FixedArray<Row>
  private let shift: UInt64
  private let multiplier: UInt64

  /// - Parameter capacity: associations; more are refused.
  init(capacity: Int, using random: inout some RandomNumberGenerator) {
    self.capacity = capacity
    // Two thirds full at most: a search then takes some two steps.
    var bits: UInt64 = 4
    while 1 << bits < capacity + capacity / 2 { bits += 1 }
    rows = FixedArray(repeating: Row(), count: 1 << bits)
    shift = 64 - bits
    multiplier = random.next() | 1
  }

  /// What stands for all associations that differ in the worker alone; nil for an SPI that nobody may have.
  @inline(__always) static func key(_ spi: UInt32) -> UInt32? { spi >= 256 ? spi >> 4 : nil }

  @inline(__always) private func home(_ key: UInt32) -> Int {
    Int(truncatingIfNeeded: (UInt64(truncatingIfNeeded: key) &* multiplier) >> shift)
  }

  /// The side that packets of the key go to; nil: nobody has claimed it.
  @inline(__always) subscript(_ key: UInt32) -> Int? {
    let mask = rows.count &- 1
    var place = home(key)
    while true {
      let row = rows[place]
      if row.key == key { return Int(truncatingIfNeeded: row.side) }
      if row.key == 0 { return nil }
      place = (place &+ 1) & mask
    }
  }

  /// Enters a key that is not there.
  /// - Returns: false when the table is full.
  mutating func insert(_ key: UInt32, _ side: Int) -> Bool {
    guard count < capacity, key != 0 else { return false }
    var place = home(key)
    while rows[place].key != 0 { place = (place &+ 1) & (rows.count &- 1) }
    rows[place] = Row(key: key, side: Int32(truncatingIfNeeded: side))
    count += 1
    return true
  }

  /// Takes a key out, if it is there; those behind it move up, so that no search ends too early.
  mutating func remove(_ key: UInt32) {
    let mask = rows.count &- 1
    var hole = home(key)
    while rows[hole].key != key {
      if rows[hole].key == 0 { return }
      hole = (hole &+ 1) & mask
    }
    count -= 1
    var next = (hole &+ 1) & mask
    while rows[next].key != 0 {
      // Who would be found before the hole stays.
      if (next &- home(rows[next].key)) & mask >= (next &- hole) & mask {
        rows[hole] = rows[next]
        hole = next
      }
      next = (next &+ 1) & mask
    }
    rows[hole] = Row()
  }
}
