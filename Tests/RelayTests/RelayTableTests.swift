import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

/// What the identity relay looks things up in, against the same said slowly.
@Suite struct RelayTableTests {
  @Test(arguments: 1...12 as ClosedRange<UInt64>) func theTableAgreesWithADictionary(seed: UInt64) {
    var random = SeededNumbers(seed: seed)
    let capacity = 1 + random.below(200)
    var table = RelayTable(capacity: capacity, using: &random)
    var slow: [UInt32: Int] = [:]
    // Few keys, so that each is entered and taken out often, and many stand side by side.
    let keys = (0..<(2 * capacity)).map { _ in UInt32(16 + random.below(1 << 28 - 16)) }
    for step in 0..<6000 {
      let key = keys[random.below(keys.count)]
      if random.chance(550), slow[key] == nil {
        let isEntered = table.insert(key, step)
        #expect(isEntered == (slow.count < capacity))
        if isEntered { slow[key] = step }
      } else {
        table.remove(key)
        slow[key] = nil
      }
      #expect(table.count == slow.count)
      let other = keys[random.below(keys.count)]
      #expect(table[other] == slow[other])
    }
    for key in keys { #expect(table[key] == slow[key]) }
  }

  @Test func nobodyHasAReservedSPI() {
    for spi in [0, 1, 15, 255] as [UInt32] { #expect(RelayTable.key(spi) == nil) }
    for spi in [256, 271] as [UInt32] { #expect(RelayTable.key(spi) == 16) }
    #expect(RelayTable.key(.max) == 0x0FFF_FFFF)
  }

  /// Pairs, then rules in their order, looked through one by one.
  private struct SlowPolicy {
    var pairs: [(a: Int, b: Int, terms: RelayPolicy.Terms)] = []
    var groups: [[Int]] = []
    var rules: [(a: Int, b: Int, terms: RelayPolicy.Terms)] = []

    func terms(_ a: Int, _ b: Int, _ wall: Int64) -> RelayPolicy.Terms? {
      if a == b { return nil }
      if let pair = pairs.last(where: { Set([$0.a, $0.b]) == [a, b] }) {
        return wall <= pair.terms.notAfter ? pair.terms : nil
      }
      return rules.first { rule in
        wall <= rule.terms.notAfter
          && (groups[rule.a].contains(a) && groups[rule.b].contains(b)
            || groups[rule.a].contains(b) && groups[rule.b].contains(a))
      }?.terms
    }

    func names(_ a: Int) -> Bool {
      pairs.contains { $0.a == a || $0.b == a }
        || rules.contains { groups[$0.a].contains(a) || groups[$0.b].contains(a) }
    }
  }

  @Test(arguments: 1...20 as ClosedRange<UInt64>) func thePolicyAgreesWithASlowOne(seed: UInt64) {
    var random = SeededNumbers(seed: seed)
    let tags = (0..<12).map { _ in HostIdentity.generate(.ed25519).tag }
    var policy = RelayPolicy()
    var slow = SlowPolicy()
    func terms(_ random: inout SeededNumbers) -> RelayPolicy.Terms {
      RelayPolicy.Terms(
        bandwidth: UInt64(random.below(1000)), priority: UInt8(random.below(8)),
        notAfter: random.chance(300) ? Int64(random.below(100)) : .max)
    }
    for group in 0..<random.below(7) {
      let members = (0..<12).filter { _ in random.chance(250) }
      let isAdded = policy.add(group: "g\(group)", members.map { tags[$0] })
      #expect(isAdded)
      slow.groups.append(members)
    }
    for _ in 0..<random.below(8) where !slow.groups.isEmpty {
      let (a, b) = (random.below(slow.groups.count), random.below(slow.groups.count))
      let terms = terms(&random)
      let isAdded = policy.allow(groups: "g\(a)", "g\(b)", terms)
      #expect(isAdded)
      slow.rules.append((a, b, terms))
    }
    for _ in 0..<random.below(8) {
      let (a, b) = (random.below(12), random.below(12))
      let terms = terms(&random)
      let isAdded = policy.allow(tags[a], tags[b], terms)
      #expect(isAdded == (a != b))
      if a != b { slow.pairs.append((a, b, terms)) }
    }
    for wall in [0, 50, 99, 1000] as [Int64] {
      for a in 0..<12 {
        #expect(policy.names(tags[a]) == slow.names(a))
        for b in 0..<12 { #expect(policy.terms(tags[a], tags[b], at: wall) == slow.terms(a, b, wall)) }
      }
    }
  }

  @Test func groupsAndRulesAreLimited() {
    var policy = RelayPolicy()
    for number in 0..<RelayPolicy.mostGroups {
      let isAdded = policy.add(group: "g\(number)", [])
      #expect(isAdded)
    }
    let isMore = policy.add(group: "more", [])
    let isTwice = policy.add(group: "g0", [])
    let isUnknown = policy.allow(groups: "g0", "more")
    #expect(!isMore && !isTwice && !isUnknown)
  }

  // MARK: Messages

  /// What is read has one spelling, and nothing shorter or longer is the same message.
  @Test func enrolmentMessagesReadBack() throws {
    let sites = RelaySites(3)
    var messages: [EnrolmentMessage] = [
      .who(nonce: .init(high: 1, low: 2), cookie: [UInt8](repeating: 3, count: 32)),
      .older(
        .init(
          nonce: .init(high: 1, low: 2), sequence: 9,
          identity: .init(algorithm: 13, hostIdentity: [UInt8](repeating: 6, count: 36)),
          signature: [UInt8](repeating: 8, count: 64))),
    ]
    for number in 0..<3 {
      for tickets in [0, 1, 40] {
        messages.append(.enrol(sites.enrolment(number) { $0.tickets = [UInt8](repeating: 5, count: tickets) }.enrol))
      }
    }
    for seen in [
      Endpoint(address: IPAddress(v4: 0xC000_0201), port: 17),
      Endpoint(address: IPAddress(v6High: 0x2001_0DB8 << 32, low: 7), port: 65535),
    ] {
      messages.append(
        .enrolled(
          .init(
            nonce: .init(high: 1, low: 2), token: .init(high: 3, low: 4), silence: 120, load: 255, seen: seen,
            identity: .init(algorithm: 13, hostIdentity: [UInt8](repeating: 6, count: 36)),
            signature: [UInt8](repeating: 8, count: 64))))
    }
    for message in messages {
      let bytes = message.encoded
      #expect(EnrolmentMessage(bytes) == message)
      #expect(HairpinMessage(bytes) == nil)
      for count in 0..<bytes.count { #expect(EnrolmentMessage(Array(bytes.prefix(count))) == nil) }
      #expect(EnrolmentMessage(bytes + [0]) == nil)
      for place in bytes.indices {
        var changed = bytes
        changed[place] ^= 0x40
        if let other = EnrolmentMessage(changed) { #expect(other != message && other.encoded == changed) }
      }
    }
    #expect(EnrolmentMessage.who(nonce: .zero, cookie: Array(repeating: 0, count: 32)).encoded.count == 60)
  }
}
