import Identity
import PacketIO
import Testing

@testable import Keying

/// Strangers and partners who send as much as they can, and somebody who edits what goes by.
struct StormTests {
  /// I1s of strangers cost a look-up, and nothing is kept of them.
  @Test func askedByStrangers() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 2)
    let before = network.gateways[1].exchange.responder.count
    let sent = network.wire.count
    var strangers = Seeded(9)
    for number in 0..<10_000 {
      let scalar = (0..<32).map { _ in UInt8(truncatingIfNeeded: strangers.next()) }
      // Their packets need not be good for anything.
      var bytes = network.wire[0].bytes
      bytes.replaceSubrange(28..<40, with: scalar.prefix(12))
      network.inject(bytes, from: number % 2, to: 1)
      if number % 100 == 0 { network.run(seconds: 0.001) }
    }
    network.run(seconds: 1)
    #expect(network.wire.count == sent)
    #expect(network.gateways[1].exchange.responder.count == before)
    #expect(network.areJoined(0, 1))
  }

  /// A partner who asks without end, from many places, gets answers that leave nothing behind.
  @Test func askedByAPartner() {
    let network = HandshakeTests.network(3)
    network.join(0, 1)
    network.join(2, 1)
    network.run(seconds: 2)
    guard let i1 = network.wire.first(where: { $0.from == 0 })?.bytes else { return }
    let sent = network.wire.count
    for _ in 0..<2000 { network.inject(i1, from: 0, to: 1) }
    network.run(seconds: 1)
    #expect(network.wire.count - sent == 2000)
    #expect(network.gateways[1].exchange.responder.count <= 4)
    #expect(network.areJoined(2, 1) && network.areJoined(0, 1))
  }

  /// A partner who shakes hands without end is put off; others are not, and keys that are offered stay few.
  @Test func handsShakenWithoutEnd() {
    let network = HandshakeTests.network(3)
    network.join(0, 1)
    network.join(2, 1)
    network.run(seconds: 5)
    var other: [UInt32] = []
    other.append(contentsOf: network.gateways[1].outbound["g2"].map { [$0.spi] } ?? [])
    for _ in 0..<200 {
      network.restart(0, with: [network.partner(1, of: 0)])
      network.run(seconds: 0.3)
    }
    let installed = network.gateways[1].inbound.values.count { $0.partner == "g0" }
    #expect(installed <= 10)
    #expect(network.gateways[1].exchange.responder.count <= 130)
    #expect(network.gateways[1].outbound["g2"].map { [$0.spi] } ?? [] == other)
    network.run(seconds: 200)
    #expect(network.areJoined(0, 1) && network.areJoined(2, 1))
    #expect(network.violations == [])
  }

  /// A hundred thousand I2s that were good once, with their solutions: none makes keys, and few are answered.
  @Test func answersAgainAndAgain() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 2)
    for _ in 0..<5 {
      network.restart(0, with: [network.partner(1, of: 0)])
      network.run(seconds: 2)
    }
    let answers = network.wire.filter { HIPPacket($0.bytes)?.kind == .i2 && $0.from == 0 }.map(\.bytes)
    #expect(answers.count >= 2)
    network.run(seconds: 70)
    let before = network.gateways[1].inbound.keys.sorted()
    let path = KeyingNetwork.path(to: 0)
    var sent = 0
    for number in 0..<100_000 {
      let now = network.now.adding(nanoseconds: UInt64(number) * 10_000)
      network.gateways[1].exchange.receive(answers[number % answers.count], along: path, now: now)
      for action in network.gateways[1].exchange.takeActions() {
        switch action {
        case .send(let bytes, _): sent += bytes.count
        case .report: break
        default: Issue.record("\(action)")
        }
      }
    }
    // The last one of all gets its answer again, which is no longer.
    #expect(sent <= 100_000 / answers.count * (answers.last?.count ?? 0))
    #expect(network.gateways[1].inbound.keys.sorted() == before)
    #expect(network.areJoined(0, 1))
  }

  /// Rekeys of a partner beyond a few a second are not looked at.
  @Test func updatesWithoutEnd() {
    let network = HandshakeTests.network()
    network.join(0, 1)
    network.run(seconds: 2)
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 2)
    let updates = network.wire.filter { $0.from == 0 && HIPPacket($0.bytes)?.kind == .update }.map(\.bytes)
    let before = network.gateways[1].exchange.report(of: "g0")?.rekeys
    let sent = network.wire.count
    for _ in 0..<1000 { for update in updates { network.inject(update, from: 0, to: 1) } }
    network.run(seconds: 1)
    #expect(network.wire.count - sent <= 20)
    #expect(network.gateways[1].exchange.report(of: "g0")?.rekeys == before)
    #expect(network.areJoined(0, 1))
  }

  /// Somebody takes the better group out of what is asked: the signed list of the answer shows it.
  @Test func aWorseGroupIsNotTaken() {
    let network = HandshakeTests.network()
    var silent = network.partner(0, of: 1)
    silent.paths = []
    network.edit = { _, bytes in
      guard HIPPacket(bytes)?.kind == .i1 else { return bytes }
      var bytes = bytes
      // DH_GROUP_LIST is the first parameter: 253, 7 becomes 7, 7.
      bytes[44] = 7
      return bytes
    }
    network.set(silent, at: 1)
    network.set(network.partner(1, of: 0), at: 0)
    network.run(seconds: 20)
    #expect(network.gateways[0].outbound.isEmpty)
    #expect(network.gateways[0].events == [.failed(partner: "g1", .nothingInCommon)])
  }

  /// Somebody takes the key encapsulation out of an answer, or out of what is chosen: both are signed.
  @Test(arguments: [HIPPacketKind.r1, .i2])
  func noEncapsulationIsTakenOut(_ kind: HIPPacketKind) {
    let network = RekeyTests.network(kem: true)
    network.edit = { _, bytes in
      guard let packet = HIPPacket(bytes), packet.kind == kind, let list = packet.content(.kemList) else {
        return bytes
      }
      var bytes = bytes
      for place in list.indices { bytes[place] = 0 }
      return bytes
    }
    network.join(0, 1)
    network.run(seconds: 20)
    #expect(network.gateways.allSatisfy { $0.outbound.isEmpty && $0.inbound.isEmpty })
  }

  /// A foreign HIPv2 program gets nothing private.
  @Test func nothingPrivateForOthers() {
    let network = HandshakeTests.network()
    network.join(0, 1) { $0.isForeign = true }
    network.run(seconds: 5) { network.areJoined(0, 1) }
    network.act(0) { $0.rekey("g1", now: network.now) }
    network.run(seconds: 2)
    #expect(network.areJoined(0, 1))
    #expect(network.gateways[0].exchange.report(of: "g1")?.group == .p256)
    #expect(network.gateways[0].exchange.report(of: "g1")?.suite == ESPSuite(.aes128GCM))
    let own: Set<HIPParameter> = [.kemList, .workers, .pad, .kemPart]
    for packet in network.wire.compactMap({ HIPPacket($0.bytes) }) {
      #expect(packet.types.allSatisfy { type in !own.contains { $0.rawValue == type } })
      #expect(packet.content(.dhGroupList)?.contains(253) != true)
    }
    #expect(network.violations == [])
  }
}
