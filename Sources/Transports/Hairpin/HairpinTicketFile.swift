public import PacketIO

/// What a gateway gets of a ticket: the ticket, where the proxy is, and the key by which this side proves itself.
///
/// As text, one "name: value" a line, comment lines begin with '#'. Who can read the file can take the gateway's place
/// at the proxy; sealed packets tell him nothing.
public struct HairpinTicketFile: Sendable {
  /// The proxy's control port.
  public internal(set) var proxy: Endpoint
  /// Which of the ticket's gateways this is.
  public let end: HairpinEnd
  /// The proof key of this side.
  public let key: HairpinPrivateKey
  public let ticket: SignedHairpinTicket

  /// What is wrong with a file, as one line with its remedy.
  public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
    public let description: String
    init(_ problem: String) { description = "\(problem); have the ticket issued anew with 'culvert ticket'" }
  }

  /// - Throws: `Problem` when the key is not the one that the ticket names.
  public init(
    proxy: Endpoint, end: HairpinEnd, key: HairpinPrivateKey, ticket: SignedHairpinTicket
  ) throws(Problem) {
    guard ticket.ticket[end].key == key.publicKey else { throw Problem("the key is not the ticket's") }
    self.proxy = proxy
    self.end = end
    self.key = key
    self.ticket = ticket
  }

  /// One of version 2: the proof key is new, and what is presented says who vouches for it.
  package init(proxy: Endpoint, end: HairpinEnd, key: HairpinPrivateKey, endorsed: SignedHairpinTicket) {
    self.proxy = proxy
    self.end = end
    self.key = key
    ticket = endorsed
  }

  /// Whether a session of one file is one of the other: the same ticket, presented by the same side at the same proxy.
  package func leadsWhere(_ other: HairpinTicketFile) -> Bool {
    ticket.ticket == other.ticket.ticket && end == other.end && proxy == other.proxy
  }

  /// Reads a file's text.
  public init(text: String) throws(Problem) {
    var values: [String: String] = [:]
    for line in text.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { throw Problem("a line is not 'name: value'") }
      let name = String(parts[0])
      guard ["proxy", "side", "key", "ticket"].contains(name) else {
        throw Problem("no line is called '\(name.prefix(16))'")
      }
      guard values[name] == nil else { throw Problem("there are two lines '\(name)'") }
      values[name] = String(parts[1].drop { $0 == " " })
    }
    guard let proxy = values["proxy"].flatMap({ Endpoint($0, defaultPort: HairpinTicketFile.standardPort) }) else {
      throw Problem("the line 'proxy: ADDRESS:PORT' is missing or wrong")
    }
    guard let end: HairpinEnd = ["1": .first, "2": .second][values["side"] ?? ""] else {
      throw Problem("the line 'side: 1' or 'side: 2' is missing or wrong")
    }
    guard let key = values["key"].flatMap({ Base64.decode($0) }).flatMap({ HairpinPrivateKey(seed: $0) }) else {
      throw Problem("the line 'key' is missing or no key")
    }
    guard let ticket = values["ticket"].flatMap({ Base64.decode($0) }).flatMap({ SignedHairpinTicket($0) }) else {
      throw Problem("the line 'ticket' is missing or no ticket")
    }
    try self.init(proxy: proxy, end: end, key: key, ticket: ticket)
  }

  /// The port where a proxy is expected when nothing is said: no standard's, one above ESP in UDP.
  public static let standardPort: UInt16 = 4501
  /// Bytes of the largest file.
  public static let mostBytes = 4096

  /// The file's text.
  public var text: String {
    let ticket = ticket.ticket
    return """
      # hairpin ticket \(ticket.number) of \(ticket[end].name), for \(ticket.first.name) and \(ticket.second.name)
      proxy: \(proxy)
      side: \(end == .first ? 1 : 2)
      key: \(String(decoding: key.seedText(), as: UTF8.self))
      ticket: \(Base64.encode(self.ticket.bytes))

      """
  }

  /// Where a peer is reached through this hairpin.
  /// - Parameter transport: the position of the `HairpinTransport` that has the ticket.
  public func path(_ encapsulation: Encapsulation, transport: UInt8) -> Path {
    Path(transport: transport, endpoint: proxy, tag: tag(encapsulation))
  }

  /// A ticket's number is random; its last bit makes room for the encapsulation.
  func tag(_ encapsulation: Encapsulation) -> UInt64 {
    ticket.ticket.number.low & ~1 | (encapsulation == .tcp ? 1 : 0)
  }
}
