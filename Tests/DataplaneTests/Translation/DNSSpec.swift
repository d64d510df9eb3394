import PacketIO

@testable import Dataplane

/// A DNS message as a description: names with the labels that stand in place and the label they point to. A rewritten
/// message is then the bytes of the rewritten description.
struct DNSSpec {
  struct Name {
    var labels: [String]
    /// Number of an earlier name of the message, and of the label in it that comes next.
    var pointer: (name: Int, label: Int)?
    init(_ text: String, pointer: (name: Int, label: Int)? = nil) {
      labels = text.split(separator: ".").map(String.init)
      self.pointer = pointer
    }
  }

  enum Data {
    case raw([UInt8])
    /// Bytes in front of the first name, names, bytes behind.
    case names([UInt8], [Name], [UInt8])
  }

  struct Record {
    var owner: Name
    var type: UInt16
    var recordClass: UInt16 = 1
    var timeToLive: UInt32 = 300
    var data: Data
  }

  var flags: UInt16 = 0x8180
  var questions: [(name: Name, type: UInt16)] = []
  var answers: [Record] = []
  var authority: [Record] = []
  var additional: [Record] = []

  func bytes() -> [UInt8] {
    var bytes: [UInt8] = [0xAB, 0xCD] + big16(flags)
    bytes += big16(questions.count) + big16(answers.count) + big16(authority.count) + big16(additional.count)
    // Where the labels of each name stand.
    var places: [[Int]] = []
    func write(_ name: Name) {
      var own: [Int] = []
      for label in name.labels {
        own.append(bytes.count)
        bytes += [UInt8(label.utf8.count)] + Array(label.utf8)
      }
      if let pointer = name.pointer {
        bytes += big16(0xC000 | places[pointer.name][pointer.label])
        // Labels of a name that is pointed to through this one are not given numbers.
      } else {
        bytes.append(0)
      }
      places.append(own)
    }
    for question in questions {
      write(question.name)
      bytes += big16(question.type) + big16(1)
    }
    for record in answers + authority + additional {
      write(record.owner)
      bytes += big16(record.type) + big16(record.recordClass) + big32(record.timeToLive) + [0, 0]
      let start = bytes.count
      switch record.data {
      case .raw(let data): bytes += data
      case .names(let before, let names, let behind):
        bytes += before
        for name in names { write(name) }
        bytes += behind
      }
      bytes.replaceSubrange(start - 2..<start, with: big16(bytes.count - start))
    }
    return bytes
  }

  /// The description with every mentioned address translated, names of addresses in place.
  func rewritten(_ rewriting: NaiveRewriting) -> DNSSpec {
    func map(_ name: Name) -> Name {
      var name = name
      // A name's own labels are all of the number, or it points to the start of one that has them.
      guard let octets = DNSSpec.octets(ofReverse: name.labels) else { return name }
      let count = octets.count == 4 ? 4 : 32
      name.labels.replaceSubrange(0..<count, with: DNSSpec.reverse(rewriting.mentioned(octets)).prefix(count))
      return name
    }
    func map(_ record: Record) -> Record {
      var record = record
      record.owner = map(record.owner)
      switch record.data {
      case .raw(let data):
        if record.recordClass == 1, record.type == 1 && data.count == 4 || record.type == 28 && data.count == 16 {
          record.data = .raw(rewriting.mentioned(data))
        }
      case .names(let before, let names, let behind): record.data = .names(before, names.map(map), behind)
      }
      return record
    }
    var spec = self
    spec.questions = questions.map { (map($0.name), $0.type) }
    spec.answers = answers.map(map)
    spec.authority = authority.map(map)
    spec.additional = additional.map(map)
    if spec.bytes() != bytes(), flags & 0x8000 != 0 { spec.flags &= ~0x20 }
    return spec
  }

  /// Labels of the name of an address.
  static func reverse(_ octets: [UInt8]) -> [String] {
    octets.count == 4
      ? octets.reversed().map { "\($0)" } + ["in-addr", "arpa"]
      : octets.reversed().flatMap { [String($0 & 15, radix: 16), String($0 >> 4, radix: 16)] } + ["ip6", "arpa"]
  }

  /// Only the number and what stands in place behind it, "in-addr.arpa" or nothing, as a pointer may follow.
  static func octets(ofReverse labels: [String]) -> [UInt8]? {
    if labels.count == 6, labels[4].lowercased() == "in-addr", labels[5].lowercased() == "arpa" {
      let octets = labels.prefix(4).reversed().compactMap { UInt8($0) }
      return octets.count == 4 ? octets : nil
    }
    if labels.count == 34, labels[32].lowercased() == "ip6", labels[33].lowercased() == "arpa" {
      let digits = labels.prefix(32).reversed().compactMap { UInt8($0, radix: 16) }
      return digits.count == 32 ? (0..<16).map { digits[$0 * 2] << 4 | digits[$0 * 2 + 1] } : nil
    }
    return nil
  }
}

/// Makes messages as name servers do, at random.
struct DNSGenerator {
  var packets: PacketGenerator

  private mutating func pick(_ range: Range<Int>) -> Int { .random(in: range, using: &packets.numbers) }
  private mutating func address(_ isV4: Bool) -> [UInt8] { packets.address(isV4, &packets.numbers) }
  private mutating func name() -> String {
    (0..<pick(1..<4)).map { _ in
      String((0..<pick(1..<9)).map { _ in "abcxyz0129-_".randomElement(using: &packets.numbers)! })
    }
    .joined(separator: ".") + ".example"
  }

  mutating func spec() -> DNSSpec {
    var spec = DNSSpec()
    if pick(0..<4) == 0 { spec.flags = 0x0100 }
    if pick(0..<4) == 0 { spec.flags |= 0x20 }
    let isReverse = pick(0..<2) == 0
    let question =
      isReverse ? DNSSpec.reverse(address(pick(0..<3) > 0)).joined(separator: ".") : name()
    spec.questions = [(DNSSpec.Name(question), isReverse ? 12 : 1)]
    let labels = spec.questions[0].name.labels.count
    guard spec.flags & 0x8000 != 0 else { return spec }
    // The question's name is number 0; a name that points to it has no labels of its own.
    for _ in 0..<pick(0..<4) {
      spec.answers.append(record(owner: DNSSpec.Name("", pointer: (0, 0)), isReverse, labels))
    }
    for _ in 0..<pick(0..<3) {
      // A zone that the question lies in.
      let owner = pick(0..<2) == 0 ? DNSSpec.Name("", pointer: (0, pick(1..<labels))) : DNSSpec.Name(name())
      spec.authority.append(record(owner: owner, isReverse, labels))
    }
    for _ in 0..<pick(0..<3) { spec.additional.append(record(owner: DNSSpec.Name(name()), isReverse, labels)) }
    if pick(0..<2) == 0 {
      spec.additional.append(
        DNSSpec.Record(owner: DNSSpec.Name(""), type: 41, recordClass: 1232, timeToLive: 0, data: .raw([])))
    }
    return spec
  }

  private mutating func record(owner: DNSSpec.Name, _ isReverse: Bool, _ labels: Int) -> DNSSpec.Record {
    func inZone(_ text: String) -> DNSSpec.Name {
      pick(0..<3) == 0 ? DNSSpec.Name(text, pointer: (0, pick(0..<labels))) : DNSSpec.Name(text)
    }
    switch pick(0..<9) {
    case 0: return DNSSpec.Record(owner: owner, type: 1, data: .raw(address(true)))
    case 1: return DNSSpec.Record(owner: owner, type: 28, data: .raw(address(false)))
    case 2, 3: return DNSSpec.Record(owner: owner, type: 12, data: .names([], [inZone("host")], []))
    case 4: return DNSSpec.Record(owner: owner, type: 2, data: .names([], [inZone("ns1")], []))
    case 5:
      let soa = DNSSpec.Data.names([], [inZone("ns1"), DNSSpec.Name(name())], packets.numbers.bytes(20))
      return DNSSpec.Record(owner: owner, type: 6, data: soa)
    case 6: return DNSSpec.Record(owner: owner, type: 15, data: .names([0, 10], [inZone("mail")], []))
    case 7:
      // An alias within the tree of addresses.
      let target = DNSSpec.Name(DNSSpec.reverse(address(pick(0..<2) == 0)).joined(separator: "."))
      return DNSSpec.Record(owner: owner, type: 5, data: .names([], [target], []))
    default:
      return DNSSpec.Record(owner: owner, type: 16, data: .raw([5] + Array("10.1.".utf8)))
    }
  }
}
