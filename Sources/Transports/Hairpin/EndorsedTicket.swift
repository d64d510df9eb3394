import PacketIO

/// What a gateway presents of a ticket of version 2, which names gateways by GID: the ticket, and a proof key of its own for
/// which its identity vouches. docs/HAIRPIN.md has the layout.
package struct EndorsedTicket: Sendable, Equatable {
  /// With the control system's signature.
  package var ticket: [UInt8]
  /// By which this side proves itself, as other sides do by those that tickets of version 1 name.
  package var key: HairpinPublicKey
  package var identity: EnrolmentMessage.Key
  /// By the identity, over `proof`.
  package var signature: [UInt8]

  /// Of the longest: by an RSA identity of 3072 bits.
  package static let mostBytes = 2 + 256 + HairpinPublicKey.length + 4 + 393 + 384

  package init(
    ticket: [UInt8], key: HairpinPublicKey, identity: EnrolmentMessage.Key, signature: [UInt8]
  ) {
    self.ticket = ticket
    self.key = key
    self.identity = identity
    self.signature = signature
  }

  /// What the identity signs.
  package static func proof(_ ticket: [UInt8], _ key: HairpinPublicKey) -> [UInt8] {
    Array("culvert hairpin key 1".utf8) + ticket + key.bytes
  }

  package var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(number: UInt16(clamping: ticket.count))
    bytes += ticket + key.bytes
    bytes.append(identity)
    return bytes + signature
  }

  /// Nil for anything but its one spelling; what is in it is for others to judge.
  package init?(_ bytes: [UInt8]) {
    var reader = ByteReader(bytes[...])
    guard bytes.count <= EndorsedTicket.mostBytes, let count = reader.number(UInt16.self),
      let ticket = reader.take(Int(count)),
      let key = reader.take(HairpinPublicKey.length).flatMap(HairpinPublicKey.init),
      let identity = reader.identity(), !reader.isAtEnd
    else { return nil }
    self.init(ticket: ticket, key: key, identity: identity, signature: reader.takeRest())
  }
}
