/// Which of the numbers 0, 1, 2, … arrived: counts losses, duplicates and late comers.
public struct SequenceTally: Sendable {
  /// Distinct numbers that arrived.
  public private(set) var received: UInt64 = 0
  public private(set) var duplicates: UInt64 = 0
  /// Distinct numbers that arrived after a higher one.
  public private(set) var late: UInt64 = 0
  /// Numbers beyond the capacity.
  public private(set) var strange: UInt64 = 0
  private var next: UInt64 = 0
  /// One bit a number.
  private var seen: [UInt64]
  private let capacity: UInt64

  /// - Parameter capacity: numbers to keep apart, one bit each.
  public init(capacity: Int) {
    self.capacity = UInt64(capacity)
    seen = [UInt64](repeating: 0, count: (capacity + 63) / 64)
  }

  public mutating func take(_ number: UInt64) {
    guard number < capacity else {
      strange += 1
      return
    }
    let bit = UInt64(1) << (number & 63)
    if seen[Int(number >> 6)] & bit != 0 {
      duplicates += 1
      return
    }
    seen[Int(number >> 6)] |= bit
    received += 1
    if number < next { late += 1 } else { next = number + 1 }
  }
}
