import Identity
import PacketIO
import TestSupport

/// Bytes of hexadecimal digits; spaces and line breaks are nothing.
func hex(_ text: String) -> [UInt8] {
  let digits = text.compactMap { $0.hexDigitValue }
  return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

extension KeyMaterial {
  /// The bytes, for comparisons.
  var bytes: [UInt8] { hex(hexadecimal) }

  func slice(_ start: Int, _ count: Int) -> KeyMaterial { KeyMaterial(Array(bytes[start..<start + count])) }
}

/// A number in network byte order.
func number<T: FixedWidthInteger & UnsignedInteger>(_ value: T) -> [UInt8] {
  var bytes: [UInt8] = []
  bytes.append(number: value)
  return bytes
}

func withPacketBytes<R>(_ bytes: [UInt8], _ body: (PacketBytes) -> R) -> R {
  var copy = bytes + [0]
  return unsafe copy.withUnsafeMutableBytes { memory in
    unsafe body(PacketBytes(memory.baseAddress!, count: bytes.count))
  }
}

func sha256(_ text: String) -> [UInt8] { HostIdentitySuite.rsa.hash(Array(text.utf8)) }
