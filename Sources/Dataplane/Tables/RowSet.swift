import PacketIO

/// Rows of the tables, as bits: who of many is in it is found without looking at the others.
struct RowSet: ~Copyable {
  private let words: FixedArray<UInt64>

  /// - Parameter capacity: rows that there may be.
  init(capacity: Int) { words = FixedArray(repeating: 0, count: (capacity + 63) / 64) }

  @inline(__always)
  borrowing func insert(_ row: Int) { words.reference(row &>> 6).value |= 1 &<< UInt64(row & 63) }

  @inline(__always)
  borrowing func remove(_ row: Int) { words.reference(row &>> 6).value &= ~(1 &<< UInt64(row & 63)) }

  borrowing func contains(_ row: Int) -> Bool {
    row >> 6 < words.count && words[row >> 6] & 1 << UInt64(row & 63) != 0
  }

  /// The first of them from `row` on.
  borrowing func first(from row: Int) -> Int? {
    var place = row >> 6
    guard place < words.count else { return nil }
    var word = words[place] & ~0 << UInt64(row & 63)
    while word == 0 {
      place += 1
      guard place < words.count else { return nil }
      word = words[place]
    }
    return place << 6 + word.trailingZeroBitCount
  }

  /// Puts in all that are in another one, which has room for as many at most.
  borrowing func insert(_ other: borrowing RowSet) {
    for place in 0..<other.words.count { words.reference(place).value |= other.words[place] }
  }

  borrowing func removeAll() { for place in 0..<words.count { words.reference(place).value = 0 } }
}
