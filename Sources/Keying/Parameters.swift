import Identity
import KeyDerivation
import PacketIO

// What parameters contain (RFC 7401 §5.2, RFC 7402 §5.1). Each reads its content whole, or is nil; each writes what it
// reads.

/// SPIs for data to the sender, and where in KEYMAT the keys begin (RFC 7402 §5.1.1).
struct ESPInfo: Equatable {
  var index: UInt16
  var old: UInt32
  var new: UInt32

  init(index: Int, old: UInt32, new: UInt32) {
    self.index = UInt16(clamping: index)
    self.old = old
    self.new = new
  }

  init?(_ content: ArraySlice<UInt8>?) {
    guard var reader = content.map({ ByteReader($0) }), reader.skip(2), let index = reader.number(UInt16.self),
      let old = reader.number(UInt32.self), let new = reader.number(UInt32.self), reader.isAtEnd
    else { return nil }
    (self.index, self.old, self.new) = (index, old, new)
  }

  var content: [UInt8] {
    var bytes: [UInt8] = [0, 0]
    bytes.append(number: index)
    bytes.append(number: old)
    bytes.append(number: new)
    return bytes
  }
}

/// Which of the responder's R1s it is (RFC 7401 §5.2.3).
enum R1Counter {
  static func content(_ value: UInt64) -> [UInt8] {
    var bytes: [UInt8] = [0, 0, 0, 0]
    bytes.append(number: value)
    return bytes
  }

  static func value(_ content: ArraySlice<UInt8>?) -> UInt64? {
    guard var reader = content.map({ ByteReader($0) }), reader.skip(4), let value = reader.number(UInt64.self),
      reader.isAtEnd
    else { return nil }
    return value
  }
}

/// A puzzle (RFC 7401 §5.2.4) or its solution (§5.2.5), which has a #J too.
struct PuzzleParameter: Equatable {
  var difficulty: UInt8
  var opaque: UInt16
  var i: [UInt8]
  var j: [UInt8]

  /// 2^(38 - 32) seconds.
  static let lifetime: UInt8 = 38

  init(difficulty: UInt8, opaque: UInt16, i: [UInt8], j: [UInt8] = []) {
    self.difficulty = difficulty
    self.opaque = opaque
    self.i = i
    self.j = j
  }

  /// - Parameters:
  ///   - length: bytes of #I and #J: those of the responder's hash.
  ///   - isSolution: there is a #J.
  init?(_ content: ArraySlice<UInt8>?, length: Int, isSolution: Bool) {
    guard var reader = content.map({ ByteReader($0) }), let difficulty = reader.byte(), reader.skip(1),
      let opaque = reader.number(UInt16.self), let i = reader.take(length),
      let j = isSolution ? reader.take(length) : [], reader.isAtEnd
    else { return nil }
    self.init(difficulty: difficulty, opaque: opaque, i: i, j: j)
  }

  var content: [UInt8] {
    var bytes: [UInt8] = [difficulty, j.isEmpty ? PuzzleParameter.lifetime : 0]
    bytes.append(number: opaque)
    return bytes + i + j
  }
}

/// A public Diffie-Hellman value (RFC 7401 §5.2.7).
struct DiffieHellmanParameter: Equatable {
  var group: UInt8
  var value: [UInt8]

  init(group: UInt8, value: [UInt8]) {
    self.group = group
    self.value = value
  }

  init(_ key: DiffieHellmanKey) { self.init(group: key.group.rawValue, value: key.publicValue) }

  init?(_ content: ArraySlice<UInt8>?) {
    guard var reader = content.map({ ByteReader($0) }), let group = reader.byte(),
      let length = reader.number(UInt16.self), let value = reader.take(Int(length)), reader.isAtEnd
    else { return nil }
    self.init(group: group, value: value)
  }

  var content: [UInt8] {
    var bytes = [group]
    bytes.append(number: UInt16(clamping: value.count))
    return bytes + value
  }
}

/// Lists of 16-bit numbers: HIP_CIPHER (RFC 7401 §5.2.8), TRANSPORT_FORMAT_LIST (§5.2.11), and, behind two reserved
/// bytes, ESP_TRANSFORM (RFC 7402 §5.1.2).
enum NumberList {
  static func content(_ numbers: [UInt16], reserved: Int = 0) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: reserved)
    for number in numbers { bytes.append(number: number) }
    return bytes
  }

  static func numbers(_ content: ArraySlice<UInt8>?, reserved: Int = 0) -> [UInt16] {
    guard var reader = content.map({ ByteReader($0) }), reader.skip(reserved) else { return [] }
    var numbers: [UInt16] = []
    while let number = reader.number(UInt16.self) { numbers.append(number) }
    return numbers
  }
}

/// Numbers of UPDATEs, and those that are acknowledged (RFC 7401 §5.2.16, §5.2.17).
enum UpdateNumbers {
  static func content(_ numbers: [UInt32]) -> [UInt8] {
    var bytes: [UInt8] = []
    for number in numbers { bytes.append(number: number) }
    return bytes
  }

  static func numbers(_ content: ArraySlice<UInt8>?) -> [UInt32] {
    guard var reader = content.map({ ByteReader($0) }) else { return [] }
    var numbers: [UInt32] = []
    while let number = reader.number(UInt32.self) { numbers.append(number) }
    return numbers
  }
}

/// How many workers a side has: the last four bits of an SPI name one. Private.
enum WorkerCount {
  static func content(_ count: Int) -> [UInt8] { [0, 0, 0, UInt8(clamping: count)] }

  /// 1 where nothing is said, and where it makes no sense.
  static func value(_ content: ArraySlice<UInt8>?) -> Int {
    guard let content, content.count == 4, let count = content.last, [1, 2, 4, 8, 16].contains(count) else { return 1 }
    return Int(count)
  }
}

/// A piece of a key or ciphertext of a key encapsulation; which of the two, its length says. Private.
struct KEMPart: Equatable {
  var mechanism: UInt16
  /// From 1.
  var part: UInt8
  var parts: UInt8
  var bytes: [UInt8]

  init(mechanism: UInt16, part: UInt8, parts: UInt8, bytes: [UInt8]) {
    self.mechanism = mechanism
    self.part = part
    self.parts = parts
    self.bytes = bytes
  }

  init?(_ content: ArraySlice<UInt8>?) {
    guard var reader = content.map({ ByteReader($0) }), let mechanism = reader.number(UInt16.self),
      let part = reader.byte(), let parts = reader.byte()
    else { return nil }
    self.init(mechanism: mechanism, part: part, parts: parts, bytes: reader.takeRest())
  }

  var content: [UInt8] {
    var content: [UInt8] = []
    content.append(number: mechanism)
    return content + [part, parts] + bytes
  }
}
