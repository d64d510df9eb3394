import PacketIO

@testable import Dataplane

/// Translation of addresses straight from the RFCs, on arrays, without any of the code under test.
struct NaivePair: Equatable {
  var from: [UInt8]
  var to: [UInt8]
  var length: Int

  /// The result of translating `address`; nil when it is not in the prefix.
  func translate(_ address: [UInt8]) -> [UInt8]? {
    guard address.count == from.count else { return nil }
    for bit in 0..<length where bitOf(address, bit) != bitOf(from, bit) { return nil }
    var result = address
    for bit in 0..<length { setBit(&result, bit, bitOf(to, bit)) }
    guard address.count == 16, length <= 64 else { return result }
    // RFC 6296 section 3.1: what the prefixes differ by, modulo 2¹⁶ - 1, is added to one word.
    let words = length <= 48 ? [3] : [4, 5, 6, 7]
    let difference = (residue(masked(from)) - residue(masked(to)) + 65535) % 65535
    if difference == 0 { return result }
    for word in words {
      let old = Int(result[word * 2]) << 8 | Int(result[word * 2 + 1])
      if old == 0xFFFF { continue }
      let new = (old + difference) % 65535
      result[word * 2] = UInt8(new >> 8)
      result[word * 2 + 1] = UInt8(new & 0xFF)
      return result
    }
    return result
  }

  private func masked(_ address: [UInt8]) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: address.count)
    for bit in 0..<length { setBit(&result, bit, bitOf(address, bit)) }
    return result
  }

  private func residue(_ address: [UInt8]) -> Int {
    stride(from: 0, to: address.count, by: 2).reduce(0) { $0 + Int(address[$1]) << 8 + Int(address[$1 + 1]) } % 65535
  }

  private func bitOf(_ bytes: [UInt8], _ bit: Int) -> UInt8 { bytes[bit / 8] >> (7 - bit % 8) & 1 }
  private func setBit(_ bytes: inout [UInt8], _ bit: Int, _ value: UInt8) {
    bytes[bit / 8] = bytes[bit / 8] & ~(1 << (7 - bit % 8)) | value << (7 - bit % 8)
  }
}

/// What happens to packets of one direction.
struct NaiveRewriting {
  var source: [NaivePair]
  var destination: [NaivePair]

  /// To the peer: own to known, and, for a peer that does not translate, its known to its own.
  static func outbound(local: [PrefixPair], remote: [PrefixPair]) -> NaiveRewriting {
    NaiveRewriting(source: local.map { $0.naive(toReal: false) }, destination: remote.map { $0.naive(toReal: true) })
  }
  static func inbound(local: [PrefixPair], remote: [PrefixPair]) -> NaiveRewriting {
    NaiveRewriting(source: remote.map { $0.naive(toReal: false) }, destination: local.map { $0.naive(toReal: true) })
  }

  static func translate(_ address: [UInt8], _ pairs: [NaivePair]) -> [UInt8]? {
    // The longest prefix counts.
    pairs.filter { $0.translate(address) != nil }.max { $0.length < $1.length }?.translate(address)
  }
  func source(_ address: [UInt8]) -> [UInt8] { NaiveRewriting.translate(address, source) ?? address }
  func destination(_ address: [UInt8]) -> [UInt8] { NaiveRewriting.translate(address, destination) ?? address }
  func mentioned(_ address: [UInt8]) -> [UInt8] {
    NaiveRewriting.translate(address, source) ?? NaiveRewriting.translate(address, destination) ?? address
  }
}

extension PrefixPair {
  func naive(toReal: Bool) -> NaivePair {
    let from = toReal ? intermediate : real
    let to = toReal ? real : intermediate
    return NaivePair(from: from.address.octets, to: to.address.octets, length: from.length)
  }
}

func naiveChecksum(_ bytes: [UInt8]) -> UInt16 { ~onesComplementSum(bytes) }

func big16(_ value: some BinaryInteger) -> [UInt8] {
  [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
}
func big32(_ value: some BinaryInteger) -> [UInt8] { big16(value >> 16) + big16(value) }

/// Packet memory for one packet at a time, with marks around it that the code under test must not touch.
final class PacketMemory {
  private let pool = BufferPool(count: 1)
  private let offset = 256

  /// - Parameter room: bytes behind the packet that may be written to.
  func load(_ bytes: [UInt8], room: Int = 0) -> PacketBytes {
    let whole = pool.bytes(0)
    for index in 0..<64 {
      whole[offset - 1 - index] = 0xA5
      whole[offset + bytes.count + room + index] = 0x5A
    }
    whole.copy(bytes, to: offset)
    return whole.slice(offset, bytes.count + room)
  }

  /// - Parameter count: what `load` was given, room included.
  func isIntact(_ count: Int) -> Bool {
    let whole = pool.bytes(0)
    return (0..<64).allSatisfy { whole[offset - 1 - $0] == 0xA5 && whole[offset + count + $0] == 0x5A }
  }
}
