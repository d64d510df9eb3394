import PacketIO

/// Walks a DNS message (RFC 1035 section 4) in order, name by name and record by record, without trust: everything
/// lies within the message, and pointers lead backwards only. The steps that following pointers may take are limited by
/// the length of the message, so that no message costs more than linear time.
struct DNSMessage: ~Copyable {
  static let headerLength = 12
  /// The longest name, as it stands without compression (RFC 1035 section 2.3.4).
  private static let longestName = 255

  enum RecordType {
    static let a: UInt16 = 1
    static let sig: UInt16 = 24
    static let aaaa: UInt16 = 28
    static let opt: UInt16 = 41
    static let rrsig: UInt16 = 46
    static let tsig: UInt16 = 250
  }
  static let internet: UInt16 = 1

  /// A resource record, without its owner's name.
  struct Record {
    let type: UInt16
    let recordClass: UInt16
    let timeToLive: UInt32
    /// Where the data's length stands.
    let lengthPlace: Int
    let data: Range<Int>
  }

  /// A name, read with all that its pointers lead to.
  struct Name: BitwiseCopyable {
    /// First byte behind it where it stands.
    var end = 0
    /// Where its pointer stands, if it ends in one.
    var pointer: Int?
    /// Where its first label stands: behind the pointers it may begin with.
    var start = 0
    /// Labels that stand in one piece from `start` on.
    var contiguous = 0
    var labels = 0
    /// The place of the last label but one, and of the last.
    var lastButOne = 0
    var last = 0
  }

  let bytes: PacketBytes
  private var steps: Int

  /// Nil for what is shorter than a header.
  init?(_ bytes: PacketBytes) {
    guard bytes.count >= DNSMessage.headerLength else { return nil }
    self.bytes = bytes
    // A name under ip6.arpa has 34 labels; records of them that are pointers to one have 30 bytes or more.
    steps = bytes.count &* 4 &+ 256
  }

  var isResponse: Bool { bytes[2] & 0x80 != 0 }
  /// Standard queries, and the answers to them.
  var isQuery: Bool { bytes[2] & 0x78 == 0 }
  /// The answer was validated (RFC 4035 section 3.2.3).
  var isAuthenticData: Bool { bytes[3] & 0x20 != 0 }
  func clearAuthenticData() { bytes[3] &= ~0x20 }

  var questions: Int { Int(bytes.load16(4)) }
  /// In the sections behind the questions.
  var records: Int { Int(bytes.load16(6)) &+ Int(bytes.load16(8)) &+ Int(bytes.load16(10)) }

  /// Reads the name at `place`; nil when it is not one.
  mutating func name(at place: Int) -> Name? {
    var name = Name()
    var at = place
    var length = 0
    // Where pointers may lead: before everything that was read of the name so far.
    var limit = place
    var isInOnePiece = true
    while true {
      steps &-= 1
      guard steps > 0, at < bytes.count else { return nil }
      let count = Int(bytes[at])
      if count == 0 {
        if name.end == 0 { name.end = at &+ 1 }
        if name.labels == 0 { name.start = at }
        return name
      }
      if count < 64 {
        length &+= 1 &+ count
        guard length < DNSMessage.longestName, at &+ 1 &+ count < bytes.count else { return nil }
        if name.labels == 0 { name.start = at }
        if isInOnePiece { name.contiguous &+= 1 }
        name.labels &+= 1
        name.lastButOne = name.last
        name.last = at
        at &+= 1 &+ count
      } else {
        guard count >= 0xC0, at &+ 2 <= bytes.count else { return nil }
        if name.end == 0 {
          name.end = at &+ 2
          name.pointer = at
        }
        if name.labels > 0 { isInOnePiece = false }
        at = Int(bytes.load16(at) & 0x3FFF)
        guard at >= DNSMessage.headerLength, at < limit else { return nil }
        limit = at
      }
    }
  }

  /// Reads the fixed part of a record that follows its owner's name; nil when it is not all there.
  func record(at place: Int) -> Record? {
    guard place &+ 10 <= bytes.count else { return nil }
    let start = place &+ 10
    let length = Int(bytes.load16(place &+ 8))
    guard start &+ length <= bytes.count else { return nil }
    return Record(
      type: bytes.load16(place), recordClass: bytes.load16(place &+ 2), timeToLive: bytes.load32(place &+ 4),
      lengthPlace: place &+ 8, data: start..<start &+ length)
  }

  /// Labels that end the names of addresses, as big-endian text in lower case.
  enum Label {
    static let inAddr: (text: UInt64, count: Int) = (0x69_6E2D_6164_6472, 7)
    static let ip6: (text: UInt64, count: Int) = (0x69_7036, 3)
    static let arpa: (text: UInt64, count: Int) = (0x6172_7061, 4)
  }

  /// Whether the label at `place` is this one, in whatever case.
  func isLabel(at place: Int, _ label: (text: UInt64, count: Int)) -> Bool {
    guard place &+ label.count < bytes.count, Int(bytes[place]) == label.count else { return false }
    var text: UInt64 = 0
    for index in 1...label.count {
      let character = bytes[place &+ index]
      let isUppercase = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(character)
      text = text &<< 8 | UInt64(isUppercase ? character | 0x20 : character)
    }
    return text == label.text
  }

  /// Names inside a record's data that may be compressed (RFC 1035 section 3.3, RFC 3597 section 4): how many, and
  /// how many bytes stand before the first.
  static func namesInData(_ type: UInt16) -> (skip: Int, names: Int) {
    switch type {
    case 2, 3, 4, 5, 7, 8, 9, 12, 30, 39: (0, 1)  // NS MD MF CNAME MB MG MR PTR NXT DNAME
    case 6, 14, 17: (0, 2)  // SOA MINFO RP
    case 15, 18, 21, 36: (2, 1)  // MX AFSDB RT KX
    case 26: (2, 2)  // PX
    case 33: (6, 1)  // SRV
    default: (0, 0)
    }
  }
}
