import Identity
import PacketIO
import Testing

@testable import Keying

/// NOTIFYs: who gets one, who is believed, and that nothing changes by them.
@Suite struct NoticeTests {
  private static func joined() -> KeyingNetwork {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 5)
    #expect(network.areJoined(0, 1))
    network.wire = []
    return network
  }

  private static func notices(_ network: KeyingNetwork) -> [NotificationParameter] {
    network.wire.compactMap { HIPPacket($0.bytes) }.filter { $0.kind == .notify }
      .compactMap { NotificationParameter($0.content(.notification)) }
  }

  /// An UPDATE of g1 with a parameter that nobody knows, which is critical because its number is odd.
  private static func strange(_ network: KeyingNetwork, isSealed: Bool = true) throws -> [UInt8] {
    let session = try #require(network.gateways[1].exchange.session(with: network.gateways[0].identity.tag))
    let identity = network.gateways[1].identity
    let macKey = isSealed ? session.macKeys.sent : session.macKeys.received
    var bytes = HIPBuilder(.update, from: identity.tag, to: network.gateways[0].identity.tag).finish()
    // Nobody who builds packets here knows the type.
    func append(_ type: UInt16, _ content: [UInt8]) {
      bytes.append(number: type)
      bytes.append(number: UInt16(content.count))
      bytes += content + [UInt8](repeating: 0, count: (4 - content.count & 7) & 7)
      bytes[1] = UInt8(bytes.count / 8 - 1)
    }
    append(1001, [1, 2, 3])
    append(HIPParameter.hipMAC.rawValue, session.suite.mac(bytes, key: macKey))
    append(HIPParameter.hipSignature.rawValue, [0, 7] + identity.sign(bytes))
    return bytes
  }

  /// A partner that wants something unknown is told what; not more often than once a second.
  @Test func anUnknownParameter() throws {
    let network = NoticeTests.joined()
    let packet = try NoticeTests.strange(network)
    for _ in 0..<5 { network.inject(packet, from: 1, to: 0) }
    network.run(seconds: 0.5)
    #expect(NoticeTests.notices(network) == [NotificationParameter(.unsupportedCriticalParameter, [3, 233])])
    #expect(network.gateways[1].events.last == .notified(partner: "g0", .unsupportedCriticalParameter))
    #expect(network.areJoined(0, 1))
    #expect(network.gateways[0].exchange.counters.malformed == 5)
  }

  /// Strangers, and whoever has not the keys, get nothing.
  @Test func anUnknownParameterOfAnybody() throws {
    let network = NoticeTests.joined()
    network.inject(try NoticeTests.strange(network, isSealed: false), from: 1, to: 0)
    var stranger = HIPBuilder(.update, from: HostIdentity.generate(.p256).tag, to: network.gateways[0].identity.tag)
      .finish()
    stranger[1] += 1
    stranger += [3, 233, 0, 0, 0, 0, 0, 0]
    network.inject(stranger, from: 1, to: 0)
    network.run(seconds: 2)
    #expect(NoticeTests.notices(network).isEmpty)
  }

  /// The responder's suites change between its R1 and the I2: the initiator hears what was wrong with that.
  @Test func aSuiteThatIsNotOffered() {
    let network = HandshakeTests.network()
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.set(silent, at: 1)
    network.set(network.partner(1, of: 0), at: 0)
    network.run(seconds: 2) { network.wire.contains { HIPPacket($0.bytes)?.kind == .r1 } }
    silent.suites = [ESPSuite(.chaCha20Poly1305)]
    network.set(silent, at: 1)
    network.run(seconds: 0.3)
    #expect(NoticeTests.notices(network) == [NotificationParameter(.invalidESPTransform)])
    #expect(network.gateways[0].events == [.notified(partner: "g1", .invalidESPTransform)])
    #expect(network.gateways[1].events == [.failed(partner: "g0", .nothingInCommon)])
  }

  /// What a notice says is told once, until there are other keys; forged ones are not told, and none changes anything.
  @Test func believed() throws {
    let network = NoticeTests.joined()
    func notice(_ number: UInt16, by identity: HostIdentity) -> [UInt8] {
      var builder = HIPBuilder(.notify, from: network.gateways[1].identity.tag, to: network.gateways[0].identity.tag)
      builder.append(.notification, NotificationParameter(Notice(number)).content)
      builder.appendSignature(by: identity)
      return builder.finish()
    }
    let events = network.gateways[0].events.count
    for _ in 0..<3 { network.inject(notice(44, by: network.gateways[1].identity), from: 1, to: 0) }
    network.run(seconds: 10)
    network.inject(notice(24, by: HostIdentity.generate(.p256)), from: 1, to: 0)
    network.run(seconds: 10)
    #expect(network.gateways[0].events.dropFirst(events) == [.notified(partner: "g1", Notice(44))])
    #expect(network.areJoined(0, 1) && network.violations.isEmpty)
    #expect(network.wire.isEmpty)
  }

  /// One that makes keys again and again waits after eight times, and that is said where there are none.
  @Test func tooOften() {
    let network = HandshakeTests.network()
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.set(silent, at: 1)
    for round in 0..<9 {
      network.restart(0, with: [network.partner(1, of: 0)])
      network.run(seconds: 1)
      #expect(network.areJoined(0, 1) == (round < 8))
      if round == 7 { network.act(0) { $0.closeAll(now: network.now) } }
      network.run(seconds: 1)
    }
    #expect(network.gateways[1].events.last == .failed(partner: "g0", .tooOften))
  }

  // MARK: Relays

  private static let relay = HandshakeTests.identity("relay", .ecdsa)

  private static func notice(
    _ notice: Notice, _ data: [UInt8] = [], to network: KeyingNetwork, by signer: HostIdentity = relay
  ) -> [UInt8] {
    var builder = HIPBuilder(.notify, from: relay.tag, to: network.gateways[0].identity.tag)
    builder.append(.hostID, signer.publicIdentity.hostID)
    builder.append(.notification, NotificationParameter(notice, data).content)
    builder.appendSignature(by: signer)
    return builder.finish()
  }

  private static func taken(_ spi: UInt32) -> [UInt8] {
    var data: [UInt8] = []
    data.append(number: spi)
    return data
  }

  /// Its word is told once; that of somebody else in its name, or of a relay that this side does not have, is not.
  @Test func aRelaySpeaks() {
    let network = NoticeTests.joined()
    network.act(0) { $0.set(relays: [NoticeTests.relay.tag]) }
    let events = network.gateways[0].events.count
    for _ in 0..<3 { network.inject(NoticeTests.notice(.blockedByPolicy, to: network), from: 1, to: 0) }
    let forged = NoticeTests.notice(.spiTaken, to: network, by: HandshakeTests.identity("other", .ecdsa))
    network.inject(forged, from: 1, to: 0)
    network.run(seconds: 2)
    #expect(
      network.gateways[0].events.dropFirst(events)
        == [.relayNotified(relay: NoticeTests.relay.tag, .blockedByPolicy)])
    network.act(0) { $0.set(relays: []) }
    let unknown = network.gateways[0].exchange.counters.unknown
    network.inject(NoticeTests.notice(.spiTaken, to: network), from: 1, to: 0)
    network.run(seconds: 2)
    #expect(network.gateways[0].exchange.counters.unknown == unknown + 1)
    #expect(network.areJoined(0, 1) && network.violations.isEmpty)
  }

  /// The relay does not let an I2, an R2 or a rekey pass whose SPI another pair has: keys come about all the same, under
  /// another one.
  @Test(arguments: [HIPPacketKind.i2, .r2, .update]) func anSPIThatIsTaken(kind: HIPPacketKind) {
    let network = HandshakeTests.network()
    network.act(0) { $0.set(relays: [NoticeTests.relay.tag]) }
    var taken: UInt32?
    network.judge = { from, _, packet in
      guard from == 0, packet.kind == kind, let info = ESPInfo(packet.content(.espInfo)), info.old != info.new
      else { return [KeyingNetwork.delay] }
      if taken == nil {
        taken = info.new & ~15
        network.inject(
          NoticeTests.notice(.spiTaken, NoticeTests.taken(info.new & ~15), to: network), from: 1, to: 0)
      }
      return info.new & ~15 == taken ? [] : [KeyingNetwork.delay]
    }
    // Whoever is to send it begins, or is asked.
    var silent = network.partner(kind == .r2 ? 1 : 0, of: kind == .r2 ? 0 : 1)
    silent.paths = []
    network.set(silent, at: kind == .r2 ? 0 : 1)
    network.set(network.partner(kind == .r2 ? 0 : 1, of: kind == .r2 ? 1 : 0), at: kind == .r2 ? 1 : 0)
    network.run(seconds: 5)
    if kind == .update {
      network.act(0) { $0.rekey("g1", now: network.now) }
      network.run(seconds: 5)
      #expect(network.gateways[0].exchange.report(of: "g1")?.rekeys == 1)
    }
    #expect(taken != nil && network.areJoined(0, 1))
    #expect(network.gateways[0].inbound.keys.allSatisfy { $0 & ~15 != taken })
  }

  /// A relay that stands by has another pair's under the SPI that is in use: new keys bring another one.
  @Test func anSPIInUseThatIsTaken() {
    let network = NoticeTests.joined()
    network.act(0) { $0.set(relays: [NoticeTests.relay.tag]) }
    let spi = network.gateways[0].exchange.session(with: network.gateways[1].identity.tag)?.inboundSPI ?? 0
    network.inject(NoticeTests.notice(.spiTaken, NoticeTests.taken(spi), to: network), from: 1, to: 0)
    network.run(seconds: 5)
    let after = network.gateways[0].exchange.session(with: network.gateways[1].identity.tag)?.inboundSPI
    #expect(after != nil && after != spi && network.areJoined(0, 1) && network.violations.isEmpty)
    // What nobody here has moves nothing.
    network.inject(NoticeTests.notice(.spiTaken, NoticeTests.taken(4096), to: network), from: 1, to: 0)
    network.run(seconds: 5)
    #expect(network.gateways[0].exchange.session(with: network.gateways[1].identity.tag)?.inboundSPI == after)
  }
}
