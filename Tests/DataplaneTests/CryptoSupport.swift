import PacketIO
import TestSupport

@testable import Dataplane

/// For all files here.
typealias SeededNumbers = TestSupport.SeededNumbers

/// Bytes written as hexadecimal digits, with white space wherever it pleases.
func hex(_ text: String) -> [UInt8] {
  let digits = text.filter { !$0.isWhitespace }.map { UInt8($0.hexDigitValue ?? -1) }
  precondition(digits.count.isMultiple(of: 2))
  return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// An AEAD with arrays instead of packet memory, which it takes from the middle of a buffer: bytes written
/// outside of their window are noticed.
final class ArrayAEAD {
  private let aead: AEAD
  private let pool = BufferPool(count: 2)
  private let source: PacketBytes
  private let target: PacketBytes
  private let offset: Int

  /// - Parameter offset: of plain and sealed bytes in their buffers, so that alignments can be tried.
  init(_ cipher: Cipher, key: [UInt8], sealing: Sealing, offset: Int = 64) {
    aead = AEAD(cipher, key: KeyMaterial(key), sealing: sealing)
    source = pool.bytes(0)
    target = pool.bytes(1)
    self.offset = offset
  }

  func seal(iv: UInt64, _ data: AdditionalData, _ plain: [UInt8]) -> [UInt8] {
    source.copy(plain, to: offset)
    let count = plain.count + AEAD.icvLength
    mark(count)
    aead.seal(iv: iv, data, from: source.slice(offset, plain.count), to: target.slice(offset, count))
    check(count)
    precondition(source.slice(offset, plain.count).array() == plain, "sealing changed its source")
    return target.slice(offset, count).array()
  }

  /// The plain bytes, nil when they are not authentic.
  func open(iv: UInt64, _ data: AdditionalData, _ sealed: [UInt8]) -> [UInt8]? {
    mark(sealed.count)
    target.copy(sealed, to: offset)
    let authentic = aead.open(iv: iv, data, inPlace: target.slice(offset, sealed.count))
    check(sealed.count)
    return authentic ? target.slice(offset, sealed.count - AEAD.icvLength).array() : nil
  }

  private func mark(_ count: Int) {
    for i in 0..<64 {
      target[offset - 1 - i % offset] = 0xA5
      target[offset + count + i] = 0x5A
    }
  }

  private func check(_ count: Int) {
    for i in 0..<64 {
      precondition(target[offset - 1 - i % offset] == 0xA5, "bytes in front of the packet were overwritten")
      precondition(target[offset + count + i] == 0x5A, "bytes behind the packet were overwritten")
    }
  }
}

extension AdditionalData {
  /// 0 to 12 bytes as they stand in memory.
  init(_ bytes: [UInt8]) {
    func word(_ index: Int) -> UInt32 {
      bytes.dropFirst(index * 4).prefix(4).reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
    self.init(spi: 0, sequence: 0, extended: false)
    words = (word(0), word(1), word(2))
    count = bytes.count
  }

  var bytes: [UInt8] {
    [words.0, words.1, words.2].flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
      .prefix(count).map(\.self)
  }
}

/// A number from bytes in network order.
func bigEndian(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
