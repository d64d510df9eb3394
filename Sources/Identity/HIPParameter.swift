import PacketIO

/// The types of the parameters that are known here (RFC 7401 §5.2, RFC 7402 §5.1, RFC 8046 §4), and private ones.
public enum HIPParameter: UInt16, Sendable, CaseIterable {
  case espInfo = 65
  case r1Counter = 129
  case locatorSet = 193
  case puzzle = 257
  case solution = 321
  case seq = 385
  case ack = 449
  case dhGroupList = 511
  case diffieHellman = 513
  case hipCipher = 579
  case hostID = 705
  case hitSuiteList = 715
  case notification = 832
  case echoRequestSigned = 897
  case echoResponseSigned = 961
  case transportFormatList = 2049
  case espTransform = 4095
  /// Private: key encapsulations, two bytes each, best first.
  case kemList = 33540
  /// Private: how many of the last bits of an SPI name a worker.
  case workers = 35766
  /// Private: zeros that make an I1 as long as the R1 that it asks for.
  case pad = 39274
  /// Private, and critical: a piece of an encapsulation's key or ciphertext.
  case kemPart = 41873
  case hipMAC = 61505
  case hipMAC2 = 61569
  case hipSignature2 = 61633
  case hipSignature = 61697

  /// Bytes of type and length.
  static let headLength = 4

  /// Whether a packet may hold several of the type: ESP_INFO of several associations (RFC 7402 §5.1.1), certificates
  /// (RFC 8002 §2), notifications (RFC 7401 §5.3.6), echoes that are not signed (§5.2.21, §5.2.23).
  static func canRepeat(_ type: UInt16) -> Bool { [65, 768, 832, 63425, 63661].contains(type) }

  /// Bytes of a parameter with its head and padding (RFC 7401 §5.2.1).
  static func paddedLength(_ count: Int) -> Int { (headLength + count + 7) & ~7 }

  /// Type, length, content and padding (RFC 7401 §5.2.1). More than 65535 bytes of content are not to be had.
  func bytes(_ content: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(HIPParameter.paddedLength(content.count))
    bytes.append(number: rawValue)
    bytes.append(number: UInt16(clamping: content.count))
    bytes += content
    bytes += [UInt8](repeating: 0, count: HIPParameter.paddedLength(content.count) - bytes.count)
    return bytes
  }
}
