import Identity
import PacketIO
import TestSupport
import Testing

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// Hairpins by tickets that name gateways by GID: a gateway proves itself by its identity, and needs no secret of a ticket.
  @Suite struct HairpinGIDTests {
    /// Two gateways and a third one, and a ticket for the first two.
    private struct Site {
      let lab: HairpinLab
      let gateways: [HostIdentity]
      var pair: RelayPolicy.Pair { RelayPolicy.Pair(gateways[0].tag, gateways[1].tag) }

      init(_ change: (inout HairpinProxyOptions) -> Void = { _ in }) throws {
        lab = try HairpinLab(change)
        gateways = [.generate(.p256), .generate(.ed25519), .generate(.p256)]
      }

      /// The longest tickets.
      init(_ kind: HostIdentity.Kind) throws {
        lab = try HairpinLab { $0.name = String(repeating: "r", count: 63) }
        gateways = [.generate(kind), .generate(kind)]
      }

      func ticket(
        by key: HairpinPrivateKey? = nil, _ change: (inout IdentityTicket) -> Void = { _ in }
      ) throws -> [UInt8] {
        var random = SystemRandomNumberGenerator()
        var ticket = IdentityTicket(
          number: .random(using: &random), pair, notBefore: UInt64(lab.began) - 60, notAfter: UInt64(lab.began) + 3600)
        change(&ticket)
        return try #require(SignedIdentityTicket(signing: ticket, with: key ?? lab.sample.authority)).bytes
      }

      /// What a gateway of those makes of it.
      /// - Parameters:
      ///   - signer: who vouches for the proof key.
      ///   - end: nil: where the ticket names the gateway.
      func file(
        _ ticket: [UInt8], _ number: Int, signer: Int? = nil, end: HairpinEnd? = nil
      ) throws -> HairpinTicketFile {
        let own = gateways[number].publicIdentity
        var random = SystemRandomNumberGenerator()
        let key = try #require(HairpinPrivateKey.generate(using: &random))
        let endorsed = EndorsedTicket(
          ticket: ticket, key: key.publicKey,
          identity: .init(algorithm: own.algorithm, hostIdentity: own.hostIdentity),
          signature: gateways[signer ?? number].sign(EndorsedTicket.proof(ticket, key.publicKey)))
        let place = end ?? (own.tag == pair.smaller ? .first : .second)
        let presented = try #require(
          PresentedTicket(endorsed.bytes, place) ?? PresentedTicket(endorsed.bytes, place.other))
        return HairpinTicketFile(
          proxy: HairpinLab.endpoint(), end: place, key: key,
          endorsed: SignedHairpinTicket(presented.ticket, presented: endorsed.bytes))
      }

      func open(_ file: HairpinTicketFile, _ encapsulation: Encapsulation = .udp) throws -> HairpinLab.Gateway {
        try HairpinLab.Gateway([.init(file, encapsulation)])
      }
    }

    @Test(arguments: [(Encapsulation.udp, Encapsulation.udp), (.tcp, .udp), (.tcp, .tcp)])
    func twoMeetByTheirIdentities(encapsulations: (Encapsulation, Encapsulation)) async throws {
      let (isOpen, got, record) = try await HairpinLab.run { () -> (Bool, [[UInt8]], HairpinRecord?) in
        let site = try Site()
        let ticket = try site.ticket()
        let files = try [site.file(ticket, 0), site.file(ticket, 1)]
        let (a, b) = (try site.open(files[0], encapsulations.0), try site.open(files[1], encapsulations.1))
        let isOpen = site.lab.until([a, b]) { a.counter("hairpins-open") == 1 && b.counter("hairpins-open") == 1 }
        a.send([HairpinLab.packet(1, size: 1000)], to: files[0].path(encapsulations.0, transport: 2))
        b.send([HairpinLab.packet(2, size: 500)], to: files[1].path(encapsulations.1, transport: 2))
        site.lab.until([a, b]) { a.received.count == 1 && b.received.count == 1 }
        // With the ticket's end.
        site.lab.shift = 4000
        site.lab.until([a, b]) { !site.lab.records.all.isEmpty }
        return (isOpen, a.received + b.received, site.lab.records.all.first)
      }
      #expect(isOpen && got == [HairpinLab.packet(2, size: 500), HairpinLab.packet(1, size: 1000)])
      #expect(record?.reason == .lifetime && record?.first.hasPrefix("2001:2") == true)
    }

    /// Keys of whatever kind: the longest ticket, key and signature get there.
    @Test(arguments: HostIdentity.Kind.allCases) func anyIdentityIsGood(kind: HostIdentity.Kind) async throws {
      let isOpen = try await HairpinLab.run { () -> Bool in
        let site = try Site(kind)
        let ticket = try site.ticket { $0.relay = String(repeating: "r", count: 63) }
        let gateway = try site.open(try site.file(ticket, 0))
        return site.lab.until([gateway]) { gateway.counter("hairpins-open") == 1 }
      }
      #expect(isOpen)
    }

    /// Each thing that is wrong has its reason, and nothing is kept.
    @Test func whatIsWrongOpensNothing() async throws {
      let refused = try await HairpinLab.run { () -> [HairpinReason?] in
        let site = try Site { $0.name = "relay-1" }
        func reason(_ file: HairpinTicketFile) throws -> HairpinReason? {
          let before = site.lab.records.refusals.count
          let gateway = try site.open(file)
          site.lab.until([gateway]) {
            site.lab.records.refusals.count > before || gateway.counter("hairpins-open") == 1
          }
          return site.lab.server.admission.hairpins.count == 0 ? site.lab.records.refusals.last?.reason : nil
        }
        let ticket = try site.ticket { $0.relay = "relay-1" }
        let foreign = try site.ticket(by: site.lab.sample.keys[0]) { $0.relay = "relay-1" }
        let expired = try site.ticket {
          $0.relay = "relay-1"
          $0.notBefore -= 1000
          $0.notAfter = UInt64(site.lab.began) - 10
        }
        let isFirst = site.gateways[0].tag == site.pair.smaller
        return [
          try reason(site.file(foreign, 0)), try reason(site.file(expired, 0)),
          try reason(site.file(try site.ticket(), 0)),
          // Somebody else vouches; it is shown at the partner's place.
          try reason(site.file(ticket, 0, signer: 2)),
          try reason(site.file(ticket, 0, end: isFirst ? .second : .first)),
        ]
      }
      #expect(refused == [.forged, .expired, .otherProxy, .forged, .malformed])
    }

    /// Who was started anew has another proof key.
    @Test func theNewestKeyCounts() async throws {
      let opened = try await HairpinLab.run { () -> [UInt64] in
        let site = try Site()
        let ticket = try site.ticket()
        let first = try site.open(try site.file(ticket, 0))
        site.lab.until([first]) { first.counter("hairpins-open") == 1 }
        let second = try site.open(try site.file(ticket, 0))
        site.lab.until([second]) { second.counter("hairpins-open") == 1 }
        return [
          first.counter("hairpins-open"), second.counter("hairpins-open"),
          UInt64(site.lab.server.admission.hairpins.count),
        ]
      }
      #expect(opened == [1, 1, 1])
    }

    /// A denial of the relay's policy goes before the ticket, also of a hairpin that is open.
    @Test func aDenialEndsIt() async throws {
      let (isOpen, record, refusal) = try await HairpinLab.run { () -> (Bool, HairpinReason?, HairpinReason?) in
        let site = try Site { $0.relay = RelayOptions(identity: .generate(.p256)) }
        let ticket = try site.ticket()
        let gateway = try site.open(try site.file(ticket, 0))
        let isOpen = site.lab.until([gateway]) { gateway.counter("hairpins-open") == 1 }
        var policy = RelayPolicy()
        policy.deny([site.pair])
        _ = site.lab.server.identities?.set(policy, site.lab.clock)
        site.lab.until([gateway]) { !site.lab.records.all.isEmpty && gateway.counter("hairpins-open") == 0 }
        let again = try site.open(try site.file(try site.ticket(), 1))
        site.lab.until([again]) { !site.lab.records.refusals.isEmpty }
        let refusal = site.lab.records.refusals.last?.reason
        // When it is lifted the same ticket is good again.
        _ = site.lab.server.identities?.set(RelayPolicy(), site.lab.clock)
        let restarted = try site.open(try site.file(ticket, 0))
        let isBack = site.lab.until([restarted]) { restarted.counter("hairpins-open") == 1 }
        return (isOpen && isBack, site.lab.records.all.first?.reason, refusal)
      }
      #expect(isOpen && record == .notAllowed && refusal == .notAllowed)
    }
  }
}
