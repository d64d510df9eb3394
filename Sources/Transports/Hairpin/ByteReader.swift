/// Takes numbers in network byte order off the front of bytes; nil where they end too early.
struct ByteReader {
  private let bytes: ArraySlice<UInt8>
  private(set) var offset: Int

  init(_ bytes: ArraySlice<UInt8>) {
    self.bytes = bytes
    offset = bytes.startIndex
  }

  var isAtEnd: Bool { offset == bytes.endIndex }
  var remaining: Int { bytes.endIndex - offset }

  mutating func take(_ count: Int) -> [UInt8]? {
    guard count >= 0, bytes.endIndex - offset >= count else { return nil }
    defer { offset += count }
    return Array(bytes[offset..<offset + count])
  }

  mutating func number<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type) -> T? {
    guard let taken = take(T.bitWidth / 8) else { return nil }
    return taken.reduce(0) { T(truncatingIfNeeded: UInt64($0) << 8 | UInt64($1)) }
  }

  mutating func number16() -> HairpinNumber? {
    guard let high = number(UInt64.self), let low = number(UInt64.self) else { return nil }
    return HairpinNumber(high: high, low: low)
  }
}

extension [UInt8] {
  /// Appends a number in network byte order.
  package mutating func append<T: FixedWidthInteger & UnsignedInteger>(number: T) {
    for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: number >> T(shift)))
    }
  }

  package mutating func append(_ number: HairpinNumber) {
    append(number: number.high)
    append(number: number.low)
  }
}

/// A random number of 128 bits: a ticket's, or one that is answered.
public struct HairpinNumber: Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public var high: UInt64
  public var low: UInt64

  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// A new one.
  public static func random(using generator: inout some RandomNumberGenerator) -> HairpinNumber {
    HairpinNumber(high: generator.next(), low: generator.next())
  }

  /// None.
  public static let zero = HairpinNumber(high: 0, low: 0)

  /// 32 hexadecimal digits.
  public var description: String { HairpinNumber.digits(high) + HairpinNumber.digits(low) }

  /// Reads what `description` writes.
  public init?(_ text: String) {
    guard text.utf8.count == 32, text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
      let high = UInt64(text.prefix(16), radix: 16), let low = UInt64(text.suffix(16), radix: 16)
    else { return nil }
    self.init(high: high, low: low)
  }

  private static func digits(_ value: UInt64) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: 16 - text.utf8.count) + text
  }
}
