import ArgumentParser
import Identity
import Keying
import Lab
import PacketIO

/// What a stranger sends to a gateway, or what that is compared with.
enum FloodKind: String, CaseIterable, ExpressibleByArgument {
  case none
  /// As garbage, but to a socket that nobody reads: what the same packets cost where there is no gateway.
  case sink
  /// ESP under SPIs that nobody has.
  case garbage
  /// The first packet of a handshake, from identities that nobody knows.
  case i1
  /// The same in a partner's name.
  case partnerI1 = "partner-i1"
  /// A packet of the partner's, from its address, again and again.
  case replay

  var note: String {
    switch self {
    case .none: "no flood"
    case .sink: "to a socket that nobody reads"
    case .garbage: "ESP under unknown SPIs"
    case .i1: "I1 of strangers"
    case .partnerI1: "I1 in the partner's name"
    case .replay: "a packet of the partner's, from its address"
    }
  }

  /// The payload of the datagrams, and where 8 bytes of it are new in each; nil without a flood.
  /// - Parameters:
  ///   - gids: of the partner and of the gateway that is flooded.
  ///   - recorded: a sealed packet of the partner's.
  func datagram(_ gids: [String], recorded: [UInt8]) throws -> (bytes: [UInt8], fresh: [Int])? {
    switch self {
    case .none: return nil
    case .sink, .garbage: return ([UInt8](repeating: 0xA5, count: 100), [0, 8, 16])
    // The sender's HIT, but for the prefix that makes it one.
    case .i1: return (try FloodKind.i1(to: gids[1]), [16, 20])
    case .partnerI1:
      guard let partner = HostIdentityTag(gids[0]) else { throw LabError("\(gids[0]) is no GID") }
      var bytes = try FloodKind.i1(to: gids[1])
      bytes.replaceSubrange(FloodKind.sender, with: partner.bytes)
      return (bytes, [])
    case .replay: return (recorded, [])
    }
  }

  /// Of the sender's HIT, behind the marker (RFC 7401 §5.1).
  private static let sender = 12..<28

  private static func i1(to gid: String) throws -> [UInt8] {
    guard let tag = HostIdentityTag(gid) else { throw LabError("\(gid) is no GID") }
    var exchange = KeyExchange(random: SystemRandomNumberGenerator())
    let path = Path(endpoint: PacketIO.Endpoint(address: IPAddress(v4: 1), port: 1))
    let stranger = HostIdentity.generate(.p256)
    exchange.set(
      Partner(name: "gateway", local: stranger, remote: tag, paths: [path]), now: MonotonicTime(nanoseconds: 1))
    for case .send(let bytes, _) in exchange.takeActions() { return [0, 0, 0, 0] + bytes }
    throw LabError("no I1 was made")
  }
}
