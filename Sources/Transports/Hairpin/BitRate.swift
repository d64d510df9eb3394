import PacketIO

/// Bits a second as people write them: "500k", "100M", "2.5G" or a whole number.
public struct BitRate: Hashable, Sendable, CustomStringConvertible {
  public let bitsPerSecond: UInt64

  /// Nil for anything that is not from 1 bit to 1 Tbit a second.
  public init?(_ text: String) {
    let units: [Character: UInt64] = ["k": 1000, "M": 1_000_000, "G": 1_000_000_000]
    let unit = text.last.flatMap { units[$0] }
    let digits = unit == nil ? text[...] : text.dropLast()
    let parts = digits.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    guard let whole = UInt64(digits: parts[0]), whole <= 1_000_000_000_000 else { return nil }
    var value = whole.multipliedReportingOverflow(by: unit ?? 1).partialValue
    if parts.count == 2 {
      guard let unit, (1...3).contains(parts[1].count), let fraction = UInt64(digits: parts[1]) else { return nil }
      value += fraction * unit / [1, 10, 100, 1000][parts[1].count]
    }
    guard whole <= 1_000_000_000_000 / (unit ?? 1), (1...1_000_000_000_000).contains(value) else { return nil }
    bitsPerSecond = value
  }

  public var description: String { "\(bitsPerSecond) bit/s" }
}
