import Dataplane
import PacketIO

/// Seals what a gateway would not, under its key.
final class Forger {
  private let association: SecurityAssociationConfiguration
  private let aead: AEAD
  private let pool = BufferPool(count: 2)

  init(_ association: SecurityAssociationConfiguration) {
    self.association = association
    aead = AEAD(association.cipher, key: association.key, engine: .openSSL)
  }

  /// - Parameters:
  ///   - plain: all that is encrypted, with padding, pad length and next header; whole words.
  func seal(_ plain: [UInt8], sequence: UInt64) -> [UInt8] {
    let (source, target) = (pool.bytes(0), pool.bytes(1))
    source.copy(plain, to: 0)
    var front = 8
    target.store32(association.spi, 0)
    target.store32(UInt32(truncatingIfNeeded: sequence), 4)
    if !association.implicitIV {
      target.store64(sequence, 8)
      front = 16
    }
    let count = plain.count + AEAD.icvLength
    aead.seal(
      iv: sequence,
      AdditionalData(spi: association.spi, sequence: sequence, extended: association.extendedSequenceNumbers),
      from: source.slice(0, plain.count), to: target.slice(front, count))
    return target.slice(0, front + count).array()
  }

  /// An inner packet with the padding of RFC 4303 §2.4.
  func seal(inner: [UInt8], nextHeader: UInt8, sequence: UInt64) -> [UInt8] {
    let padding = (2 - inner.count) & 3
    return seal(inner + (0..<padding).map { UInt8($0 + 1) } + [UInt8(padding), nextHeader], sequence: sequence)
  }
}

/// Inner packets, by hand.
enum InnerBytes {
  /// IPv4 with UDP, its checksum left out (RFC 768).
  static func udp4(from source: String, to destination: String, payload: [UInt8]) -> [UInt8] {
    var header: [UInt8] = [0x45, 0] + word(28 + payload.count) + [0, 1, 0, 0, 64, 17, 0, 0]
    header += octets(source) + octets(destination)
    var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + (Int(header[$1]) << 8 | Int(header[$1 + 1])) }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    header.replaceSubrange(10..<12, with: word(~sum & 0xFFFF))
    return header + word(7) + word(7) + word(8 + payload.count) + [0, 0] + payload
  }

  private static func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
  private static func octets(_ address: String) -> [UInt8] { address.split(separator: ".").compactMap { UInt8($0) } }
}
