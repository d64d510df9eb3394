import Dataplane
public import PacketIO

/// Names a key without telling it: the first half of its SHA-256.
///
/// Two associations with one fingerprint draw on one supply of sequence numbers, whatever their files are called
/// and whatever their SPIs are. Key material has at least 160 random bits, so the name cannot be searched for.
public struct Fingerprint: Hashable, Sendable, CustomStringConvertible {
  /// 32 hexadecimal digits, fit for a file name.
  public let description: String

  public init(_ key: KeyMaterial) {
    description = key.fingerprint.bytes.prefix(16).map(hexadecimal).joined()
  }

  /// Reads what `description` wrote.
  init?(text: some StringProtocol) {
    guard text.utf8.count == 32, text.utf8.allSatisfy({ hexadecimalDigit($0) != nil }) else { return nil }
    description = text.lowercased()
  }
}

/// Two digits.
func hexadecimal(_ byte: UInt8) -> String {
  String(decoding: [hexadecimalDigits[Int(byte >> 4)], hexadecimalDigits[Int(byte & 15)]], as: UTF8.self)
}

let hexadecimalDigits = Array("0123456789abcdef".utf8)

/// The value of an ASCII digit.
func hexadecimalDigit(_ character: UInt8) -> UInt8? {
  switch character {
  case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
  case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
  case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
  default: nil
  }
}
