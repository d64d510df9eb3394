package import PacketIO

/// Cuts what a TCP stream brings into records (RFC 9329 §3): the originator's stream prefix once, then for each record
/// two bytes of length, themselves included, and an ESP packet or a key exchange message behind four zero bytes.
///
/// It holds no bytes: whoever reads keeps what is `incomplete` and shows it again with what comes next.
package struct RecordFramer: BitwiseCopyable, Equatable {
  /// Why a stream cannot be read any further; it is to be closed.
  package enum Fault: Equatable, BitwiseCopyable {
    /// The stream does not begin as RFC 9329 §4 has it.
    case badPrefix
    /// A length of 0 or 1, which does not even include itself (RFC 9329 §3).
    case badLength
  }

  /// What comes next in a stream.
  package enum Step: Equatable, BitwiseCopyable {
    /// ESP packets of `size` bytes, `lengthBytes` apart, of which the last may be shorter: `length` bytes from `offset`
    /// on in all. No more than was asked for.
    case packets(offset: Int, length: Int, size: Int, count: Int)
    /// One byte 0xFF: to be dropped silently (RFC 9329 §6.6).
    case keepAlive
    /// What follows four zero bytes: `length` bytes from `offset` on, possibly none.
    case message(offset: Int, length: Int)
    /// Too short for an SPI.
    case tooShort
    /// What is left begins something that has `needed` bytes, as far as is known, more than there are.
    case incomplete(needed: Int)
    case fault(Fault)
  }

  /// "IKETCP", the first bytes that the originator sends (RFC 9329 §4).
  package static let prefix: [UInt8] = Array("IKETCP".utf8)
  package static let lengthBytes = 2
  /// Bytes of the longest record, its length included.
  package static let longestRecord = 0xFFFF
  private static let keepAliveByte: UInt8 = 0xFF

  private var awaitsPrefix: Bool

  /// - Parameter isOriginator: whether this side opened the stream; the other side then sends no prefix.
  package init(isOriginator: Bool) { awaitsPrefix = !isOriginator }

  /// Takes what comes next at `offset`, which moves behind it. On `incomplete` and `fault` it stays.
  ///
  /// - Parameter most: packets of one run at most, 1 or more.
  package mutating func next(_ bytes: PacketBytes, _ offset: inout Int, most: Int) -> Step {
    if awaitsPrefix {
      let there = min(bytes.count - offset, RecordFramer.prefix.count)
      for index in 0..<there where bytes[offset + index] != RecordFramer.prefix[index] { return .fault(.badPrefix) }
      guard there == RecordFramer.prefix.count else { return .incomplete(needed: RecordFramer.prefix.count) }
      offset += there
      awaitsPrefix = false
    }
    guard bytes.count - offset >= RecordFramer.lengthBytes else {
      return .incomplete(needed: RecordFramer.lengthBytes)
    }
    let record = Int(bytes.load16(offset))
    guard record >= RecordFramer.lengthBytes else { return .fault(.badLength) }
    guard bytes.count - offset >= record else { return .incomplete(needed: record) }
    let start = offset + RecordFramer.lengthBytes
    let size = record - RecordFramer.lengthBytes
    guard isSealed(bytes, start, size) else {
      offset += record
      if size == 1, bytes[start] == RecordFramer.keepAliveByte { return .keepAlive }
      guard size >= Superpacket.markerLength else { return .tooShort }
      return .message(offset: start + Superpacket.markerLength, length: size - Superpacket.markerLength)
    }
    offset += record
    var count = 1
    while count < most, bytes.count - offset >= RecordFramer.lengthBytes {
      let next = Int(bytes.load16(offset))
      guard next <= record, next <= bytes.count - offset,
        isSealed(bytes, offset + RecordFramer.lengthBytes, next - RecordFramer.lengthBytes)
      else { break }
      offset += next
      count += 1
      if next < record { break }
    }
    return .packets(offset: start, length: offset - start, size: size, count: count)
  }

  /// How many bytes what begins with `bytes`, at least one, has in all, as far as they tell; no more than there are
  /// where it is whole, or cannot be read.
  func needed(_ bytes: PacketBytes) -> Int { needed(count: bytes.count) { bytes[$0] } }
  func needed(_ bytes: [UInt8]) -> Int { needed(count: bytes.count) { bytes[$0] } }

  private func needed(count: Int, _ byte: (Int) -> UInt8) -> Int {
    let start = awaitsPrefix ? RecordFramer.prefix.count : 0
    for index in 0..<min(count, start) where byte(index) != RecordFramer.prefix[index] { return count }
    if count < start { return start }
    if count < start + RecordFramer.lengthBytes { return start + RecordFramer.lengthBytes }
    return start + (Int(byte(start)) << 8 | Int(byte(start + 1)))
  }

  @inline(__always)
  private func isSealed(_ bytes: PacketBytes, _ start: Int, _ size: Int) -> Bool {
    size >= Superpacket.markerLength && bytes.loadNative(start, as: UInt32.self) != 0
  }
}
