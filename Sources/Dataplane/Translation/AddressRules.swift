import PacketIO

/// What becomes of the addresses in one place of a packet: the rules of several prefixes, the longest first.
///
/// A pair of gateways has a handful of them, so they are looked through in turn. Sendable because its memory is written
/// by the initialiser alone.
struct AddressRules: ~Copyable, @unchecked Sendable {
  let v4: FixedArray<TranslationRule>
  let v6: FixedArray<TranslationRule>

  init(_ rules: [TranslationRule]) {
    let sorted = rules.sorted { $0.length > $1.length }
    var v4 = FixedArray<TranslationRule>(capacity: rules.count)
    var v6 = FixedArray<TranslationRule>(capacity: rules.count)
    for rule in sorted { _ = rule.family == .v4 ? v4.append(rule) : v6.append(rule) }
    self.v4 = v4
    self.v6 = v6
  }

  /// Nil for an address that none of the rules is for.
  @inline(__always)
  func translate(_ address: IPAddress) -> TranslationRule.Translated? {
    address.isV4 ? AddressRules.firstMatch(address, v4) : AddressRules.firstMatch(address, v6)
  }

  @inline(__always)
  fileprivate static func firstMatch(
    _ address: IPAddress, _ rules: borrowing FixedArray<TranslationRule>
  ) -> TranslationRule.Translated? {
    for index in 0..<rules.count {
      if let translated = rules[index].translate(address) { return translated }
    }
    return nil
  }
}

/// How addresses are rewritten in packets that go one way through a tunnel.
package struct AddressRewriting: ~Copyable, Sendable {
  let source: AddressRules
  let destination: AddressRules

  init(source: [TranslationRule], destination: [TranslationRule]) {
    self.source = AddressRules(source)
    self.destination = AddressRules(destination)
  }

  /// What becomes of an address that is spoken of inside a packet: whichever rule is for it.
  func translateMentioned(_ address: IPAddress) -> IPAddress? {
    (source.translate(address) ?? destination.translate(address))?.address
  }

  /// What has changed with the addresses of an IP header.
  struct HeaderChange {
    /// An address was rewritten.
    var isChanged = false
    /// For checksums over a pseudo-header with these addresses.
    var addresses = ChecksumDelta.none
  }

  /// Rewrites the addresses of the IP header at `offset`, and corrects an IPv4 header's own checksum.
  /// - Parameter isEmbedded: the packet went the other way: the roles of source and destination are exchanged.
  @inline(__always)
  func rewriteHeader(_ bytes: PacketBytes, at offset: Int, isV4: Bool, isEmbedded: Bool = false) -> HeaderChange {
    let first = isV4 ? offset &+ 12 : offset &+ 8
    let second = isV4 ? offset &+ 16 : offset &+ 24
    let sourcePlace = isEmbedded ? second : first
    let destinationPlace = isEmbedded ? first : second
    var change = HeaderChange()
    if isV4 {
      AddressRewriting.rewriteV4(source.v4, bytes, at: sourcePlace, &change)
      AddressRewriting.rewriteV4(destination.v4, bytes, at: destinationPlace, &change)
      if !change.addresses.isNone {
        bytes.store16(change.addresses.applied(toChecksum: bytes.load16(offset &+ 10)), offset &+ 10)
      }
    } else {
      AddressRewriting.rewriteV6(source.v6, bytes, at: sourcePlace, &change)
      AddressRewriting.rewriteV6(destination.v6, bytes, at: destinationPlace, &change)
    }
    return change
  }

  @inline(__always)
  private static func rewriteV4(
    _ rules: borrowing FixedArray<TranslationRule>, _ bytes: PacketBytes, at place: Int, _ change: inout HeaderChange
  ) {
    guard !rules.isEmpty else { return }
    let address = IPAddress(v4: bytes.load32(place))
    guard let translated = AddressRules.firstMatch(address, rules) else { return }
    bytes.store32(translated.address.v4, place)
    change.isChanged = true
    change.addresses = change.addresses + translated.delta
  }

  @inline(__always)
  private static func rewriteV6(
    _ rules: borrowing FixedArray<TranslationRule>, _ bytes: PacketBytes, at place: Int, _ change: inout HeaderChange
  ) {
    guard !rules.isEmpty else { return }
    let address = IPAddress(v6High: bytes.load64(place), low: bytes.load64(place &+ 8))
    guard let translated = AddressRules.firstMatch(address, rules) else { return }
    bytes.store64(translated.address.high, place)
    bytes.store64(translated.address.low, place &+ 8)
    change.isChanged = true
    change.addresses = change.addresses + translated.delta
  }
}
