import PacketIO
import Testing

@testable import Dataplane

/// Changes of one peer at a time, in random order, against tables that are compiled from what they come to.
@Suite struct RegistryTests {
  /// A gateway's control side, its workers' tables, and what was seen of keys.
  struct Bench {
    let workers: Int
    var registry: Registry
    var tables: [Snapshot]
    var numbers: SeededNumbers
    /// The highest number that was used under a sending key, and accepted under a receiving one with its SPI.
    private var sent: [KeyFingerprint: UInt64] = [:]
    private var received: [String: UInt64] = [:]

    init(workers: Int, seed: UInt64) {
      self.workers = workers
      numbers = SeededNumbers(seed: seed)
      let local = Bool.random(using: &numbers) ? [Prefix("10.1.0.0/16")!] : []
      let settings = Configuration(
        interface: InterfaceConfiguration(
          source: .name("none"), addresses: [InterfaceAddress(IPAddress("10.99.0.1")!, prefixLength: 24)],
          routes: [Prefix("10.0.0.0/8")!, Prefix("10.2.3.0/24")!]), name: "hub", localPrefixes: local,
        firewall: FirewallConfiguration(mode: .on))
      registry = Registry(settings, sealing: .by(CipherEngine.available[0]), workers: workers, now: .seconds(1))
      tables = (0..<workers).map { [registry] in Snapshot(registry.parts(of: $0)) }
    }

    var limits: ConfigurationLimits {
      var limits = ConfigurationLimits.none
      limits.workers = workers
      return limits
    }

    // MARK: What may change

    private mutating func some(_ range: Range<Int>) -> Int { .random(in: range, using: &numbers) }
    private mutating func isTrue(_ inverse: Int) -> Bool { some(0..<inverse) == 0 }

    private mutating func association(outbound: Bool, worker: Int = 0) -> SecurityAssociationConfiguration {
      let number = some(0..<24)
      // Now and then a key that the other direction has too.
      let direction: UInt8 = outbound != isTrue(40) ? 1 : 2
      return SecurityAssociationConfiguration(
        spi: UInt32(0x1000 + (outbound ? 0 : some(0..<30))), cipher: .aes128GCM,
        key: KeyMaterial([UInt8(number), direction, UInt8(worker)] + [UInt8](repeating: 9, count: 17)),
        extendedSequenceNumbers: !isTrue(5), implicitIV: isTrue(4), replayWindow: isTrue(3) ? 64 : 128,
        firstSequence: UInt64(some(1..<50)), lease: isTrue(3) ? SequenceLease(limit: .max) : nil)
    }

    private mutating func prefix() -> Prefix {
      let third = some(0..<4)
      return [
        Prefix("10.2.\(third).0/24")!, Prefix("10.2.\(third).\(some(0..<3))/32")!, Prefix("10.1.\(third).0/24")!,
        Prefix("10.2.0.0/16")!, Prefix("fd00:2:\(third)::/48")!, Prefix("10.\(10 + some(0..<40)).0.0/16")!,
      ][some(0..<6)]
    }

    private mutating func peer(_ name: String) -> PeerConfiguration {
      var peer = PeerConfiguration(
        name: name, prefixes: (0..<some(1..<3)).map { _ in prefix() },
        path: isTrue(3) ? nil : .path(some(0..<9)),
        inbound: (0..<some(0..<3)).map { _ in association(outbound: false) },
        outbound: isTrue(4) ? nil : association(outbound: true), keepAliveInterval: .seconds(some(0..<3)),
        aggregates: isTrue(3))
      if workers > 1, isTrue(2) { peer.workerOutbound = (0..<workers).map { association(outbound: true, worker: $0) } }
      if isTrue(4) { peer.access = [AccessEntry(hosts: prefix())] }
      if isTrue(5) {
        peer.translation = TranslationConfiguration(
          mode: isTrue(2) ? .fixed : .automatic,
          theirs: [PrefixPair(real: peer.prefixes[0], intermediate: space(of: peer.prefixes[0]))])
      }
      return peer
    }

    private mutating func space(of prefix: Prefix) -> Prefix {
      prefix.address.isV4
        ? Prefix(IPAddress(v4: 0x6470_0000 + UInt32(some(0..<4)) << 16), length: prefix.length)
        : Prefix(IPAddress(v6High: 0xFD08_5BF2_0000_0000 | UInt64(some(0..<4)) << 16, low: 0), length: prefix.length)
    }

    private mutating func agreement(_ peer: PeerConfiguration) -> AddressAgreement {
      AddressAgreement(
        remote: peer.prefixes.map { prefix in
          let states: [AddressAgreement.State] = [
            .pending, .asIs, .withdrawn, .known(space(of: prefix)), .refused(NegotiationFailure(.noSpace)),
          ]
          return AddressAgreement.Space(prefix: prefix, state: states[some(0..<5)])
        })
    }

    mutating func change() -> ConfigurationChange {
      let name = "p\(some(0..<12))"
      let known = registry.find(name)?.record.configuration
      switch some(0..<9) {
      case 0, 1: return known == nil ? .add(peer(name)) : .replace(peer(name))
      case 2: return .remove(peer: name)
      case 3:
        var peer = known ?? peer(name)
        peer.prefixes = [prefix()]
        return .replace(peer)
      case 4: return .installInbound(association(outbound: false), peer: name)
      case 5: return .installOutbound(isTrue(4) ? nil : association(outbound: true), peer: name)
      case 6: return .retireInbound(spi: known?.inbound.randomElement(using: &numbers)?.spi ?? 0x1000, peer: name)
      case 7: return .agree(agreement(known ?? peer(name)), peer: name)
      default:
        // What it is already.
        return known.map { .replace($0) } ?? .add(peer(name))
      }
    }

    // MARK: Doing it

    /// False when it is refused.
    mutating func apply(_ changes: [ConfigurationChange]) -> Bool {
      guard let draft = try? registry.draft(changes, limits: limits) else { return false }
      take(draft)
      return true
    }

    mutating func apply(_ configuration: Configuration) -> Bool {
      guard let draft = try? registry.draft(configuration, limits: limits) else { return false }
      take(draft)
      return true
    }

    private mutating func take(_ draft: Registry.Draft) {
      let transitions = registry.commit(draft, now: .seconds(2))
      for worker in 0..<workers { tables[worker] = transitions[worker].takeOver(tables[worker]) }
    }

    /// Packets go and come under some associations: no number is used twice under a key (invariant 1), nor accepted.
    mutating func carry() {
      for (worker, tables) in tables.enumerated() {
        for row in 0..<tables.peers.count {
          for association in [tables.peers[row].outbound, tables.peers[row].own].compactMap(\.self) where isTrue(2) {
            let key = association.value.fingerprint
            guard case .granted(let first) = association.value.claim(some(1..<40)) else { continue }
            #expect(first > sent[key] ?? 0, "worker \(worker) repeats \(first)")
            sent[key] = association.value.next - 1
          }
          for association in tables.inbound(of: row) where isTrue(2) {
            let key = "\(association.value.fingerprint.tag) \(association.value.spi)"
            #expect(association.value.window.highest >= received[key] ?? 0, "\(key) is open for old packets")
            _ = association.value.window.commit(association.value.window.highest + UInt64(some(1..<40)))
            received[key] = association.value.window.highest
          }
        }
      }
    }

    // MARK: The oracle

    mutating func check() {
      let configuration = registry.configuration
      let plan = AddressPlan(configuration, agreements: registry.agreements)
      #expect(registry.plan.peers == plan.peers)
      #expect(registry.interface == plan.interface)
      let routes = RouteTable(
        zip(configuration.peers.indices, plan.peers).flatMap { row, peer in peer.routes.map { ($0, UInt32(row)) } }
          + configuration.localPrefixes.map { ($0, RouteTable.own) })
      let fresh = (0..<workers).map { worker in
        Snapshot(
          configuration, sealing: .leftOut, now: .seconds(1), worker: worker, of: workers)
      }
      let addresses = (0..<20).map { _ in prefix().address }
      for (tables, fresh) in zip(tables, fresh) {
        #expect(tables.peerCount == configuration.peers.count)
        #expect(tables.aggregates == fresh.aggregates)
        #expect(
          tables.translates
            == plan.peers.indices.contains { index in
              PrefixTranslation(plan.peers[index], configuration.peers[index].translation) != nil
            })
        for address in addresses {
          let expected = routes.lookup(address).map { configuration.peers[Int($0)].name }
          #expect(tables.routes.lookup(address).map { tables.configuration.peers[Int($0)].name } == expected)
          #expect(tables.firewall.peer(of: address).map { tables.configuration.peers[$0].name } == expected)
          let access = expected.flatMap { name in configuration.peers.first { $0.name == name }?.access }
          #expect(tables.firewall.hasAccessList(address) == (access != nil))
        }
        for spi in UInt32(0x1000)...0x1020 {
          let expected = fresh.association(spi)
          let found = tables.association(spi)
          #expect(
            found.map { tables.configuration.peers[Int($0.peer)].name }
              == expected.map { fresh.configuration.peers[Int($0.peer)].name })
          if let found, let expected {
            let same = found.state.value.configuration.isSameAssociation(as: expected.state.value.configuration)
            #expect(same)
          }
        }
        for (index, peer) in configuration.peers.enumerated() {
          guard let row = tables.row(of: peer.name) else {
            Issue.record("\(peer.name) has no row")
            continue
          }
          #expect(tables.record(row)?.configuration == peer)
          let (entry, other) = (tables.peers[row], fresh.peers[fresh.row(of: peer.name)!])
          #expect(entry.keepAliveInterval == other.keepAliveInterval && entry.implicitIV == other.implicitIV)
          #expect(entry.aggregates == other.aggregates && entry.hasDeputy == other.hasDeputy)
          #expect(entry.outbound?.value.fingerprint == other.outbound?.value.fingerprint)
          #expect(entry.own?.value.fingerprint == other.own?.value.fingerprint)
          let translates = PrefixTranslation(plan.peers[index], peer.translation) != nil
          #expect((entry.translation != nil) == translates)
        }
        let used = (0..<tables.peers.count).filter { tables.record($0) != nil }
        #expect(used.count == configuration.peers.count)
      }
    }

    /// What a list of changes would come to.
    func expected(_ changes: [ConfigurationChange]) -> Configuration? {
      var configuration = registry.configuration
      for change in changes {
        func place(_ name: String) -> Int? { configuration.peers.firstIndex { $0.name == name } }
        switch change {
        case .add(let peer):
          if place(peer.name) != nil { return nil }
          configuration.peers.append(peer)
        case .replace(let peer):
          guard let place = place(peer.name) else { return nil }
          configuration.peers[place] = peer
        case .remove(let name):
          guard let place = place(name) else { return nil }
          configuration.peers.remove(at: place)
        case .installInbound(let association, let name):
          guard let place = place(name) else { return nil }
          configuration.peers[place].inbound.removeAll { $0.spi == association.spi }
          configuration.peers[place].inbound.append(association)
        case .installOutbound(let association, let workers, let name):
          guard let place = place(name) else { return nil }
          configuration.peers[place].outbound = association
          configuration.peers[place].workerOutbound = workers
        case .retireInbound(let spi, let name):
          guard let place = place(name) else { return nil }
          configuration.peers[place].inbound.removeAll { $0.spi == spi }
        case .agree(_, let name): if place(name) == nil { return nil }
        case .interface(let interface): configuration.interface = interface
        case .firewall(let firewall): configuration.firewall = firewall
        }
      }
      let isValid =
        (try? configuration.validate(transports: 16, workers: workers, engine: CipherEngine.available[0])) != nil
      return isValid ? configuration : nil
    }
  }

  @Test(arguments: [1, 2, 4], 0..<3 as Range<UInt64>)
  func changesComeToWhatIsCompiledFromNothing(workers: Int, seed: UInt64) {
    var bench = Bench(workers: workers, seed: seed)
    var taken = 0
    for step in 0..<120 {
      let changes = (0..<(step % 7 == 0 ? 3 : 1)).map { _ in bench.change() }
      let expected = bench.expected(changes)
      let before = bench.registry.configuration
      let isTaken = bench.apply(changes)
      #expect(isTaken == (expected != nil), "\(changes)")
      #expect(bench.registry.configuration == expected ?? before)
      if isTaken { taken += 1 }
      if step % 12 == 0 { bench.check() }
      bench.carry()
    }
    #expect(taken > 25, "only \(taken) of 120 changes were possible")
    bench.check()
  }

  /// A whole configuration is the sum of its differences.
  @Test(arguments: [1, 4], 0..<2 as Range<UInt64>)
  func configurationsComeToWhatIsCompiledFromNothing(workers: Int, seed: UInt64) {
    var bench = Bench(workers: workers, seed: 100 + seed)
    for _ in 0..<40 { _ = bench.apply([bench.change()]) }
    var known = [bench.registry.configuration]
    for step in 0..<16 {
      var next = known.randomElement(using: &bench.numbers)!
      if step % 3 == 0 { next.peers.shuffle(using: &bench.numbers) }
      if step % 4 == 0 { next.peers.removeLast(min(next.peers.count, 2)) }
      if step % 5 == 0 { next.localPrefixes = next.localPrefixes.isEmpty ? [Prefix("10.1.0.0/16")!] : [] }
      let isValid =
        (try? next.validate(transports: 16, workers: workers, engine: CipherEngine.available[0])) != nil
      let before = bench.registry.configuration
      let isTaken = bench.apply(next)
      #expect(isTaken == isValid)
      #expect(bench.registry.configuration == (isValid ? next : before))
      bench.carry()
      bench.check()
      for _ in 0..<4 { _ = bench.apply([bench.change()]) }
      known.append(bench.registry.configuration)
    }
  }

  /// Invariant 7, and that a change of one peer touches that one only.
  @Test func whatIsInForceMakesNoChange() throws {
    var registry = Registry(Star(peers: 300).configuration, sealing: .leftOut, workers: 2, now: .seconds(1))
    var limits = ConfigurationLimits.none
    limits.workers = 2
    let again = registry.configuration
    let draft = try registry.draft(again, limits: limits)
    #expect(draft.steps.isEmpty)
    for transition in registry.commit(draft, now: .seconds(2)) {
      #expect(transition.rows.isEmpty && transition.tables == nil && transition.unsettled.isEmpty)
    }
    var association = Star(peers: 300).inbound(7)
    association.spi += 0x10000
    let one = try registry.draft([.installInbound(association, peer: "peer-7")], limits: limits)
    #expect(one.steps.map(\.name) == ["peer-7"])
    let transitions = registry.commit(one, now: .seconds(2))
    #expect(transitions.allSatisfy { $0.rows.map(\.row) == [7] && $0.tables == nil && $0.leavingInbound.isEmpty })
  }

  /// Another worker could not know in time how far a key's numbers are.
  @Test func aKeySealsAtOneWorkerForEver() {
    var bench = Bench(workers: 2, seed: 3)
    var peer = PeerConfiguration(name: "x", prefixes: [Prefix("10.77.0.0/16")!], outbound: Sites().association)
    let outcome1 = bench.apply([.add(peer)])
    #expect(outcome1)
    peer.workerOutbound = [Sites(key: 5).association, Sites().association]
    peer.outbound = Sites(key: 7).association
    let outcome2 = bench.apply([.replace(peer)])
    #expect(!outcome2)
    let outcome3 = bench.apply([.remove(peer: "x")])
    #expect(outcome3)
    let outcome4 = bench.apply([.add(peer)])
    #expect(!outcome4)
    peer.workerOutbound = []
    peer.outbound = Sites().association
    let outcome5 = bench.apply([.add(peer)])
    #expect(outcome5)
  }

  /// A row is another peer's only after a change of the list's number, by which hand-offs are recognised.
  @Test func aRowOfAnotherPeerHasAnotherListVersion() {
    var bench = Bench(workers: 2, seed: 9)
    var owners: [Int: (serial: UInt64, version: UInt32)] = [:]
    for _ in 0..<150 {
      _ = bench.apply([bench.change()])
      let tables = bench.tables[1]
      for row in 0..<tables.peers.count {
        guard let serial = tables.record(row)?.serial else { continue }
        if let known = owners[row], known.serial != serial { #expect(known.version != tables.peerListVersion) }
        owners[row] = (serial, tables.peerListVersion)
      }
    }
    #expect(!owners.isEmpty)
  }
}

/// The hash of associations against a dictionary: many that fall on one place, taken out in any order.
@Suite struct AssociationTableTests {
  @Test(arguments: 0..<8 as Range<UInt64>) func findsWhatADictionaryFinds(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    let table = AssociationTable(capacity: 32)
    let state = StateCell(
      InboundAssociation(Star(peers: 1).inbound(0), aead: AEAD(.aes128GCM, key: Sites().keyMaterial, sealing: .leftOut))
    )
    var known: [UInt32: Int32] = [:]
    for step in 0..<400 {
      let spi = UInt32.random(in: 0..<64, using: &numbers) &* 0x0100_0001
      if known.count < table.capacity, Bool.random(using: &numbers) {
        known[spi] = Int32(step)
        table.insert(AssociationTable.Entry(spi: spi, peer: Int32(step), state: state.reference))
      } else {
        known[spi] = nil
        table.remove(spi)
      }
      for number in 0..<64 {
        let spi = UInt32(number) &* 0x0100_0001
        #expect(table.find(spi)?.peer == known[spi])
      }
    }
    withExtendedLifetime(state) {}
  }
}
