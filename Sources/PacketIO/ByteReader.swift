/// Takes bytes from the front; nil, and nothing more is to be expected, where there are too few.
package struct ByteReader {
  private var rest: ArraySlice<UInt8>

  package init(_ bytes: ArraySlice<UInt8>) { rest = bytes }

  package var isAtEnd: Bool { rest.isEmpty }

  package mutating func byte() -> UInt8? { rest.popFirst() }

  package mutating func skip(_ count: Int) -> Bool { reader(count) != nil }

  /// So many bytes.
  package mutating func take(_ count: Int) -> [UInt8]? { reader(count).map { Array($0.rest) } }

  /// So many bytes, to be read by themselves.
  package mutating func reader(_ count: Int) -> ByteReader? {
    guard count >= 0, rest.count >= count else { return nil }
    defer { rest = rest.dropFirst(count) }
    return ByteReader(rest.prefix(count))
  }

  /// All that is left.
  package mutating func takeRest() -> [UInt8] {
    defer { rest = [] }
    return Array(rest)
  }

  /// A number in network byte order.
  package mutating func number<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type) -> T? {
    guard let bytes = reader(T.bitWidth / 8) else { return nil }
    return bytes.rest.reduce(0) { T(truncatingIfNeeded: UInt64(truncatingIfNeeded: $0) << 8 | UInt64($1)) }
  }
}

extension [UInt8] {
  /// Appends a number in network byte order.
  package mutating func append<T: FixedWidthInteger & UnsignedInteger>(number: T) {
    for shift in stride(from: T.bitWidth - 8, through: 0, by: -8) {
      append(UInt8(truncatingIfNeeded: number >> T(shift)))
    }
  }
}
