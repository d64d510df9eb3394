import Glibc
import Host
import Identity
import PacketIO
import Settings
import Transports

/// Reads the tickets that a gateway shows to identity relays: files that `culvert ticket pair` or a control system wrote.
/// They are no secret, and what is in them is the relay's to judge.
struct RelayTicketReader {
  private static let setting = "relay-tickets"
  /// As many as one enrolment shows, and bytes of each.
  private static let most = 4
  private static let mostBytes = 256
  /// "CVHT", version 2.
  private static let head: [UInt8] = Array("CVHT".utf8) + [2]

  private let top: SettingReader
  private let directory: String

  init(_ top: SettingReader, directory: String) {
    self.top = top
    self.directory = directory
  }

  func tickets() -> [[UInt8]] {
    let remedy = "name a file that 'culvert ticket pair' wrote"
    let names = top.list(Self.setting, "a file's name", remedy, { $0 })
    if names.count > Self.most { top.add(Self.setting, "there are \(names.count)", "name \(Self.most) at most") }
    return names.compactMap { name in
      let path = SettingReader.resolve(name.value, in: directory)
      guard let text = try? Descriptor(open: path, O_RDONLY | O_NONBLOCK).readAll(limit: 4096) else {
        top.add(Self.setting, "\(path) cannot be read", remedy, line: name.line)
        return nil
      }
      guard let ticket = Self.ticket(text) else {
        top.add(Self.setting, "\(path) is no ticket that names GIDs", remedy, line: name.line)
        return nil
      }
      return ticket
    }
  }

  private static func ticket(_ text: [UInt8]) -> [UInt8]? {
    let lines = text.split { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }.filter {
      $0.first != UInt8(ascii: "#")
    }
    guard lines.count == 1, let ticket = Base64.decode(text: Array(lines[0])), ticket.starts(with: head),
      ticket.count <= mostBytes
    else { return nil }
    return ticket
  }

  /// The ticket in a file, if it is one of these.
  static func ticket(at path: String) -> [UInt8]? {
    (try? Descriptor(open: path, O_RDONLY | O_NONBLOCK).readAll(limit: 4096)).flatMap { ticket($0) }
  }
}

extension HairpinTicketFile {
  /// A ticket that names GIDs, as this gateway presents it at a proxy: with a new proof key that its identity vouches for.
  /// Nil: it is another gateway's.
  init?(_ bytes: [UInt8], of identity: HostIdentity, at proxy: Endpoint) {
    // "CVHT", version, priority, windows, zero; number; times and bandwidth; windows; GIDs; what only relays look at.
    var reader = ByteReader(bytes[...])
    guard reader.take(6) != nil, let windows = reader.byte(), reader.take(1) != nil, let number = reader.number16(),
      let notBefore = reader.number(UInt64.self), let notAfter = reader.number(UInt64.self),
      reader.take(8 + 8 * Int(windows)) != nil, let first = reader.take(16).flatMap({ HostIdentityTag($0) }),
      let second = reader.take(16).flatMap({ HostIdentityTag($0) }), [first, second].contains(identity.tag)
    else { return nil }
    func party(_ tag: HostIdentityTag) -> HairpinTicket.Party {
      HairpinTicket.Party(name: "\(tag)", encapsulations: Set(Encapsulation.allCases), key: nil)
    }
    let ticket = HairpinTicket(
      number: number, first: party(first), second: party(second), notBefore: notBefore, notAfter: notAfter)
    var random = SystemRandomNumberGenerator()
    guard let key = HairpinPrivateKey.generate(using: &random) else { return nil }
    let own = identity.publicIdentity
    let endorsed = EndorsedTicket(
      ticket: bytes, key: key.publicKey, identity: .init(algorithm: own.algorithm, hostIdentity: own.hostIdentity),
      signature: identity.sign(EndorsedTicket.proof(bytes, key.publicKey)))
    self.init(
      proxy: proxy, end: identity.tag == first ? .first : .second, key: key,
      endorsed: SignedHairpinTicket(ticket, presented: endorsed.bytes))
  }
}
