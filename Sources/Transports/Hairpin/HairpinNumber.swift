import PacketIO

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

extension ByteReader {
  package mutating func number16() -> HairpinNumber? {
    guard let high = number(UInt64.self), let low = number(UInt64.self) else { return nil }
    return HairpinNumber(high: high, low: low)
  }
}

extension [UInt8] {
  package mutating func append(_ number: HairpinNumber) {
    append(number: number.high)
    append(number: number.low)
  }
}
