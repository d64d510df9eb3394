/// Base64 with padding (RFC 4648 §4), in one spelling only: what decodes encodes to the same text again.
public enum Base64 {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  public static func encode(_ bytes: [UInt8]) -> String { String(decoding: text(of: bytes), as: UTF8.self) }

  /// The text as bytes, for secrets: the caller can wipe them.
  package static func text(of bytes: [UInt8]) -> [UInt8] {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      var word: UInt32 = 0
      for index in 0..<3 { word = word << 8 | (index < group.count ? UInt32(group[start + index]) : 0) }
      for index in 0..<4 {
        text.append(
          index <= group.count ? alphabet[Int(word >> UInt32(18 - 6 * index) & 63)] : UInt8(ascii: "="))
      }
    }
    return text
  }

  /// Nil for anything that `encode` would not have written.
  public static func decode(_ text: some StringProtocol) -> [UInt8]? { decode(text: Array(text.utf8)) }

  /// The same of a text that is a secret, and was read as bytes.
  package static func decode(text characters: [UInt8]) -> [UInt8]? {
    guard characters.count % 4 == 0 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(characters.count / 4 * 3)
    for start in stride(from: 0, to: characters.count, by: 4) {
      let isLast = start + 4 == characters.count
      var padding = 0
      if isLast, characters[start + 3] == UInt8(ascii: "=") {
        padding = characters[start + 2] == UInt8(ascii: "=") ? 2 : 1
      }
      var word: UInt32 = 0
      for index in 0..<4 {
        guard index < 4 - padding else {
          word <<= 6
          continue
        }
        guard let digit = value(characters[start + index]) else { return nil }
        word = word << 6 | digit
      }
      // Bits that no byte has must be zero, or there were several spellings.
      if padding > 0, word & (padding == 1 ? 0xFF : 0xFFFF) != 0 { return nil }
      for index in 0..<(3 - padding) { bytes.append(UInt8(truncatingIfNeeded: word >> UInt32(16 - 8 * index))) }
    }
    return bytes
  }

  private static func value(_ character: UInt8) -> UInt32? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character - UInt8(ascii: "A"))
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character - UInt8(ascii: "a")) + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character - UInt8(ascii: "0")) + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }
}
