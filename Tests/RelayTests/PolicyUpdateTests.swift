import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// Policies from a control system: what is taken, in which order, and from whom.
@Suite struct PolicyUpdateTests {
  private let authority: HairpinPrivateKey
  private let relay = HostIdentity.generate(.ed25519).tag
  private let gateways: [HostIdentityTag]

  init() throws {
    var random = SeededNumbers(seed: 11)
    authority = try #require(HairpinPrivateKey.generate(using: &random))
    gateways = (0..<6).map { _ in HostIdentity.generate(.ed25519).tag }
  }

  private func pair(_ a: Int, _ b: Int) -> RelayPolicy.Pair { RelayPolicy.Pair(gateways[a], gateways[b]) }

  private func book(_ keys: [HairpinPublicKey]? = nil) -> PolicyBook {
    PolicyBook(for: relay, keys: keys ?? [authority.publicKey])
  }

  private func signed(_ update: PolicyUpdate, by key: HairpinPrivateKey? = nil) throws -> [UInt8] {
    try #require(SignedPolicyUpdate(signing: update, with: key ?? authority)).bytes
  }

  private func update(
    _ number: UInt64, _ extent: PolicyUpdate.Extent = .whole, removed: [RelayPolicy.Pair] = [],
    allowed: [RelayPolicy.Pair] = []
  ) -> PolicyUpdate {
    PolicyUpdate(for: relay, number: number, extent, removed: removed, allowed: allowed.map { PolicyUpdate.Rule($0) })
  }

  private static func allows(_ book: PolicyBook, _ pair: RelayPolicy.Pair) -> Bool {
    book.policy.terms(pair.smaller, pair.greater, at: 1_800_000_000) != nil
  }

  /// A whole one, what changes it, and a whole one again.
  @Test func wholeAndThenChanges() throws {
    var book = book()
    #expect(book.number == 0 && !Self.allows(book, pair(0, 1)))
    let isWhole = try book.take(signed(update(5, allowed: [pair(0, 1), pair(2, 3)])))
    #expect(isWhole && book.number == 5 && Self.allows(book, pair(0, 1)) && Self.allows(book, pair(2, 3)))
    let second = try book.take(signed(update(6, .changes(since: 5), removed: [pair(0, 1)], allowed: [pair(4, 5)])))
    #expect(!second && book.number == 6 && !Self.allows(book, pair(0, 1)) && Self.allows(book, pair(4, 5)))
    #expect(Self.allows(book, pair(2, 3)) && !book.policy.names(gateways[0]) && book.policy.names(gateways[2]))
    _ = try book.take(signed(update(20, allowed: [pair(1, 2)])))
    #expect(book.policy.namedPairs == [pair(1, 2)] && book.number == 20)
  }

  /// A pair that is removed and allowed in one update is allowed: removals go first. Its terms are the new ones.
  @Test func removalsGoFirst() throws {
    var book = book()
    _ = try book.take(signed(update(1, allowed: [pair(0, 1)])))
    let terms = RelayPolicy.Terms(
      bandwidth: 1_000_000, priority: 7, notAfter: 1_900_000_000, windows: [HairpinTicket.Window(start: 5, end: 9)])
    var next = update(2, .changes(since: 1), removed: [pair(0, 1), pair(2, 3)])
    next.allowed = [PolicyUpdate.Rule(pair(0, 1), terms)]
    _ = try book.take(signed(next))
    #expect(book.policy.terms(gateways[0], gateways[1], at: 1_800_000_000 / 86_400 * 86_400 + 6) == terms)
    #expect(book.policy.namedPairs == [pair(0, 1)])
    // Once out, no gateway stays named by what went.
    _ = try book.take(signed(update(3, .changes(since: 2), removed: [pair(0, 1)])))
    #expect(!book.policy.names(gateways[0]) && book.policy.namedPairs.isEmpty)
  }

  /// Who is removed is denied, also where no rule named him: a pair, or a gateway with all its pairs. A whole policy says
  /// anew who is.
  @Test func whoIsRemovedIsDenied() throws {
    var book = book()
    _ = try book.take(signed(update(1, allowed: [pair(0, 1), pair(0, 2), pair(3, 4)])))
    let gateway = RelayPolicy.Pair(gateways[0], gateways[0])
    _ = try book.take(signed(update(2, .changes(since: 1), removed: [gateway, pair(4, 5)], allowed: [pair(0, 5)])))
    #expect(book.policy.namedPairs == [pair(0, 5), pair(3, 4)].sorted())
    #expect(book.policy.denies(pair(0, 1)) && book.policy.denies(pair(0, 3)) && book.policy.denies(pair(4, 5)))
    #expect(!book.policy.denies(pair(0, 5)) && !book.policy.denies(pair(1, 2)) && book.policy.names(gateways[0]))
    _ = try book.take(signed(update(3, removed: [pair(4, 5)], allowed: [pair(3, 4)])))
    #expect(book.policy.denies(pair(4, 5)) && !book.policy.denies(pair(0, 1)) && !book.policy.names(gateways[0]))
  }

  /// A copy of before is not believed, where the highest number is known.
  @Test func numbersNeverGoBack() throws {
    var book = book()
    book.highest = 7
    for number in [1, 7] as [UInt64] {
      #expect(throws: PolicyBook.Refusal.outdated(known: 7)) { try book.take(signed(update(number))) }
    }
    #expect(throws: PolicyBook.Refusal.gap(known: 0)) { try book.take(signed(update(8, .changes(since: 7)))) }
    #expect(try book.take(signed(update(8, allowed: [pair(0, 1)]))) && book.number == 8)
  }

  /// Each thing that is wrong has a reason, and changes nothing.
  @Test func whatIsWrongChangesNothing() throws {
    var random = SeededNumbers(seed: 12)
    let stranger = try #require(HairpinPrivateKey.generate(using: &random))
    var book = book()
    _ = try book.take(signed(update(5, allowed: [pair(0, 1)])))
    let other = HostIdentity.generate(.ed25519).tag
    var elsewhere = update(6)
    elsewhere.relay = other
    var cut = try signed(update(6))
    cut.removeLast()
    let cases: [([UInt8], PolicyBook.Refusal)] = [
      (try signed(update(6), by: stranger), .forged),
      (try signed(elsewhere), .otherRelay(other)),
      (try signed(update(5, allowed: [pair(2, 3)])), .outdated(known: 5)),
      (try signed(update(4)), .outdated(known: 5)),
      (try signed(update(5, .changes(since: 4))), .outdated(known: 5)),
      (try signed(update(7, .changes(since: 6))), .gap(known: 5)),
      (try signed(update(7, .changes(since: 4))), .gap(known: 5)),
      (cut, .malformed), ([], .malformed),
    ]
    for (bytes, expected) in cases {
      #expect(throws: expected) { try book.take(bytes) }
      #expect(book.number == 5 && book.policy.namedPairs == [pair(0, 1)])
    }
    // Changes before anything that they could change.
    var fresh = self.book()
    #expect(throws: PolicyBook.Refusal.gap(known: 0)) { try fresh.take(signed(update(2, .changes(since: 1)))) }
    // No bit of a right one can be changed.
    let right = try signed(update(6, .changes(since: 5), removed: [pair(0, 1)], allowed: [pair(2, 3)]))
    for place in right.indices {
      var altered = right
      altered[place] ^= 1 << UInt8(place % 8)
      let refused = #expect(throws: PolicyBook.Refusal.self) { try book.take(altered) }
      #expect(refused == .forged || refused == .malformed, "byte \(place)")
    }
    #expect(try !book.take(right))
  }

  /// What is written is read, and nothing else is.
  @Test func updatesReadBack() throws {
    var update = update(9, .changes(since: 3), removed: [pair(0, 1), pair(0, 2)], allowed: [pair(3, 4), pair(1, 5)])
    update.allowed[0].terms = RelayPolicy.Terms(
      bandwidth: .max, priority: 0, notAfter: .max,
      windows: (0..<4).map { HairpinTicket.Window(start: $0, end: 86_400) })
    let bytes = try signed(update)
    let read = try #require(SignedPolicyUpdate(bytes))
    #expect(read.update == update && read.bytes == bytes && read.isSigned(by: authority.publicKey))
    for count in 0..<bytes.count {
      #expect(SignedPolicyUpdate(Array(bytes.prefix(count)))?.isSigned(by: authority.publicKey) != true)
    }
    let faults: [(inout PolicyUpdate) -> Void] = [
      { $0.number = 0 }, { $0.extent = .changes(since: 9) }, { $0.extent = .changes(since: 0) },
      { $0.removed.reverse() }, { $0.allowed.append($0.allowed[0]) }, { $0.allowed[0].terms.priority = 8 },
      { $0.allowed[0].terms.windows[0].end = 0 }, { $0.allowed[0].terms.windows.append(.init(start: 0, end: 1)) },
      { $0.allowed[0].terms.notAfter = -1 },
    ]
    for (number, spoil) in faults.enumerated() {
      var wrong = update
      spoil(&wrong)
      #expect(wrong.fault != nil && SignedPolicyUpdate(signing: wrong, with: authority) == nil, "\(number)")
      #expect(PolicyUpdate(encoded: wrong.encoded[...]) != wrong, "\(number)")
    }
    // Counts that promise more than there is.
    var long = update.encoded
    (long[40], long[44]) = (0x7F, 0x7F)
    #expect(PolicyUpdate(encoded: long[...]) == nil)
  }

  /// In a relay: what an update takes away stops at once, and what it brings is let in.
  @Test func anUpdateIsInForceAtOnce() throws {
    let sites = RelaySites(4)
    var book = PolicyBook(for: sites.identity.tag, keys: [authority.publicKey])
    func put(_ number: UInt64, removed: [RelayPolicy.Pair] = [], allowed: [RelayPolicy.Pair] = []) throws -> Int {
      let update = PolicyUpdate(
        for: sites.identity.tag, number: number, number == 1 ? .whole : .changes(since: number - 1), removed: removed,
        allowed: allowed.map { PolicyUpdate.Rule($0) })
      _ = try book.take(signed(update))
      return sites.relay.set(book.policy, sites.clock).count
    }
    let pairs = [(0, 1), (2, 3)].map { RelayPolicy.Pair(sites.sites[$0].tag, sites.sites[$1].tag) }
    #expect(sites.enrol(0) == nil)
    #expect(try put(1, allowed: [pairs[0]]) == 0)
    for number in 0..<2 { #expect(sites.enrol(number) != nil) }
    sites.announce(0, 1, 0x1000)
    #expect(sites.receiver(0x1000, from: 1) == 0 && sites.enrol(2) == nil)
    // Both are told.
    #expect(try put(2, removed: [pairs[0]], allowed: [pairs[1]]) == 2)
    #expect(sites.receiver(0x1000, from: 1) == nil)
    for number in 2..<4 { #expect(sites.enrol(number) != nil) }
    sites.announce(2, 3, 0x1000)
    #expect(sites.receiver(0x1000, from: 3) == 2)
  }
}
