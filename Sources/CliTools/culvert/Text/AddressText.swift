import Dataplane
import Gateway

/// What `culvert map` prints.
enum AddressText {
  /// - Parameters:
  ///   - address: that was asked about, as text.
  ///   - gateway: the name of the gateway that was asked.
  static func text(_ address: String, _ meanings: [AddressMeaning], gateway: String) -> String {
    guard !meanings.isEmpty else {
      return "\(address) is neither in the network of \(gateway) nor routed to a peer"
    }
    return meanings.map { line(address, $0, gateway: gateway) }.joined(separator: "\n")
  }

  private static func line(_ address: String, _ meaning: AddressMeaning, gateway: String) -> String {
    let peer = meaning.peer
    switch (meaning.owner, meaning.known) {
    case (.here, let known?) where meaning.real == address:
      return known == address
        ? "\(peer) knows \(address) as it is" : "\(peer) knows \(address) as \(known)"
    case (.here, _): return "\(address) is what \(peer) calls \(meaning.real) of \(gateway)"
    case (.peer, nil): return "\(address) of \(peer) cannot be reached: its prefix clashes, and has no space yet"
    case (.peer, let known?) where known == meaning.real: return "\(address) is \(peer)'s, and is known as it is"
    case (.peer, let known?) where known == address: return "\(address) is \(peer)'s host \(meaning.real)"
    case (.peer, let known?): return "\(address) of \(peer) is known here as \(known)"
    }
  }
}

extension GatewayReport {
  /// The spaces of each pair of gateways, and how much was translated.
  var translationTables: [String] {
    var spaces = TextTable([("SPACE", .left), ("PREFIX", .left), ("KNOWN AS", .left)])
    var counts = TextTable([
      ("TRANSLATED", .left), ("SENT", .right), ("RECEIVED", .right), ("DNS", .right), ("DNS SIGNED", .right),
      ("DNS LEFT", .right),
    ])
    var failures: [String] = []
    for peer in statistics.peers {
      guard let translation = peer.translation else { continue }
      for space in translation.knownAs {
        spaces.add(["ours at \(peer.name)", "\(space.real)", "\(space.intermediate)"])
      }
      for space in translation.theirs { spaces.add(["\(peer.name)'s here", "\(space.real)", "\(space.intermediate)"]) }
      for prefix in translation.unrouted { spaces.add(["\(peer.name)'s here", "\(prefix)", "not reachable"]) }
      failures += translation.failures.map { "  \(peer.name): \($0)" }
      let packets = translation.packets
      if packets != TranslationCount() {
        counts.add(
          [peer.name]
            + [packets.sent, packets.received, packets.dnsRewritten, packets.dnsSigned, packets.dnsUnfit].map(
              Figure.count))
      }
    }
    let tables = [spaces, counts].filter { !$0.isEmpty }.map { $0.lines(indent: "  ") }
    return Array(tables.joined(separator: [""])) + failures
  }
}
