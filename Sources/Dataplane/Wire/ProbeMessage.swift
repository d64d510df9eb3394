package import PacketIO

/// The body of a probe (`ControlMessage.Kind.probe`), all numbers big-endian:
/// ```
/// number (8) | tie-breaker (8) | rank (1) | flags (1)
/// ```
/// The number comes back in the answer. Of two gateways the one with the higher tie-breaker leads in the choice of
/// paths (as in RFC 8445 §5.2). The rank is the place of the path in the sender's list, 255 where it is not listed.
/// Flag 1: the sender's traffic takes this path; flag 2: it takes several packets in one (RFC 9347). Bytes behind are
/// for versions to come; a body of the number alone says nothing about paths, and counts as sent along the one that is
/// used.
package struct ProbeMessage: Equatable, Sendable {
  package static let length = 18
  /// The rank of a path that is on no list.
  package static let unlisted: UInt8 = 255
  private static let usedFlag: UInt8 = 1
  private static let aggregatesFlag: UInt8 = 2

  package var number: UInt64
  /// Nil where the sender knows no selection.
  package var tieBreaker: UInt64?
  package var rank: UInt8
  package var isUsed: Bool
  package var takesAggregates: Bool

  package init(number: UInt64, tieBreaker: UInt64?, rank: UInt8, isUsed: Bool, takesAggregates: Bool = false) {
    self.number = number
    self.tieBreaker = tieBreaker
    self.rank = rank
    self.isUsed = isUsed
    self.takesAggregates = takesAggregates
  }

  /// Nil for what is too short.
  package init?(_ body: PacketBytes) {
    guard body.count >= 8 else { return nil }
    number = body.load64(0)
    let isWhole = body.count >= ProbeMessage.length
    tieBreaker = isWhole ? body.load64(8) : nil
    rank = isWhole ? body[16] : ProbeMessage.unlisted
    isUsed = isWhole ? body[17] & ProbeMessage.usedFlag != 0 : true
    takesAggregates = isWhole && body[17] & ProbeMessage.aggregatesFlag != 0
  }

  package var body: [UInt8] {
    let flags = (isUsed ? ProbeMessage.usedFlag : 0) | (takesAggregates ? ProbeMessage.aggregatesFlag : 0)
    return [UInt8](bigEndian: number) + [UInt8](bigEndian: tieBreaker ?? 0) + [rank, flags]
  }
}

/// The body of an answer to a probe (`ControlMessage.Kind.probeReply`):
/// ```
/// number (8) | family (1): 4, 6 | port (2) | address (16), IPv4 in the first four | flags (1)
/// ```
/// Behind the probe's number, where the probe came from as the answering side sees it: behind an address translator
/// that is another address than the asking side's own. Flag 2: as in `ProbeMessage`; an answer without flags has none.
package struct ProbeReply: Equatable, Sendable {
  package static let length = 27
  private static let aggregatesFlag: UInt8 = 2

  package var number: UInt64
  package var seen: Endpoint?
  package var takesAggregates: Bool

  package init(number: UInt64, seen: Endpoint?, takesAggregates: Bool = false) {
    self.number = number
    self.seen = seen
    self.takesAggregates = takesAggregates
  }

  /// Nil for what is too short.
  package init?(_ body: PacketBytes) {
    guard body.count >= 8 else { return nil }
    number = body.load64(0)
    takesAggregates = false
    guard body.count >= ProbeReply.length, let family = IPAddress.Family(rawValue: body[8]) else { return }
    let address =
      family == .v4
      ? IPAddress(v4: body.load32(11)) : IPAddress(v6High: body.load64(11), low: body.load64(19))
    seen = Endpoint(address: address, port: body.load16(9))
    takesAggregates = body.count > ProbeReply.length && body[ProbeReply.length] & ProbeReply.aggregatesFlag != 0
  }

  package var body: [UInt8] {
    guard let seen else { return [UInt8](bigEndian: number) }
    let port = [UInt8(truncatingIfNeeded: seen.port >> 8), UInt8(truncatingIfNeeded: seen.port)]
    return [UInt8](bigEndian: number) + [seen.address.family.rawValue] + port + [UInt8](bigEndian: seen.address.high)
      + [UInt8](bigEndian: seen.address.low) + (takesAggregates ? [ProbeReply.aggregatesFlag] : [])
  }
}

extension [UInt8] {
  fileprivate init(bigEndian value: UInt64) {
    self = (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) }
  }
}
