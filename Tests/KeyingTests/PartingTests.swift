import Identity
import PacketIO
import Testing

@testable import Keying

/// How two part: by CLOSE, once more where that is not acknowledged, and for want of traffic.
@Suite struct PartingTests {
  private static func joined(_ change: (inout Partner) -> Void = { _ in }) -> KeyingNetwork {
    let network = HandshakeTests.network()
    network.join(0, 1, change)
    network.run(seconds: 5)
    #expect(network.areJoined(0, 1))
    network.wire = []
    return network
  }

  private static func closes(_ network: KeyingNetwork) -> Int {
    network.wire.count { HIPPacket($0.bytes)?.kind == .close }
  }

  /// Whoever has acknowledged is not told again, be it a partner still or not.
  @Test(arguments: [true, false]) func acknowledged(isRemoved: Bool) {
    let network = PartingTests.joined()
    network.act(0) { exchange in
      if isRemoved { exchange.remove("g1", now: network.now) } else { exchange.closeAll(now: network.now) }
    }
    #expect(network.gateways[0].exchange.isLeaving)
    network.run(seconds: 0.1)
    #expect(!network.gateways[0].exchange.isLeaving)
    network.run(seconds: 2)
    #expect(PartingTests.closes(network) == 1)
  }

  /// A CLOSE that is lost is sent once more, and the other side hears that one.
  @Test(arguments: [true, false]) func theFirstIsLost(isRemoved: Bool) {
    let network = PartingTests.joined()
    var lost = 0
    network.judge = { from, _, packet in
      guard packet.kind == .close, lost == 0 else { return [KeyingNetwork.delay] }
      lost += 1
      return []
    }
    network.act(0) { exchange in
      if isRemoved { exchange.remove("g1", now: network.now) } else { exchange.closeAll(now: network.now) }
    }
    network.run(seconds: 0.4)
    #expect(network.gateways[0].exchange.isLeaving && network.gateways[1].outbound.count == 1)
    network.run(seconds: 0.4)
    #expect(!network.gateways[0].exchange.isLeaving && network.gateways[1].outbound.isEmpty)
    #expect(network.gateways[1].events.last == .closed(partner: "g0"))
    #expect(PartingTests.closes(network) == 2)
  }

  /// Whoever ends takes no part in a handshake any more, however much a partner wants one.
  @Test func theEnd() {
    let network = PartingTests.joined()
    network.judge = { _, _, packet in packet.kind == .closeAck ? [] : [KeyingNetwork.delay] }
    network.act(0) { $0.end(now: network.now) }
    network.run(seconds: 0.1)
    network.act(1) { $0.want("g0", now: network.now) }
    network.act(0) { $0.want("g1", now: network.now) }
    network.run(seconds: 20)
    #expect(network.gateways.allSatisfy { $0.inbound.isEmpty && $0.outbound.isEmpty })
    #expect(PartingTests.closes(network) == 2 && !network.gateways[0].exchange.isLeaving)
    #expect(network.gateways[1].events.last == .failed(partner: "g0", .noAnswer))
  }

  /// Only the partner acknowledges, and only what was said.
  @Test(arguments: ["echo", "signature"]) func acknowledgedBySomebodyElse(what: String) throws {
    let network = PartingTests.joined()
    network.judge = { _, _, packet in packet.kind == .closeAck ? [] : [KeyingNetwork.delay] }
    network.act(0) { $0.closeAll(now: network.now) }
    let close = try #require(network.wire.last.flatMap { HIPPacket($0.bytes) })
    var echo = Array(try #require(close.content(.echoRequestSigned)))
    if what == "echo" { echo[0] ^= 1 }
    var builder = HIPBuilder(.closeAck, from: close.receiver, to: close.sender)
    builder.append(.echoResponseSigned, echo)
    if what == "signature" {
      builder.append(.hipSignature, [0, 7] + [UInt8](repeating: 1, count: 64))
    } else {
      builder.appendSignature(by: network.gateways[1].identity)
    }
    network.inject(builder.finish(), from: 1, to: 0)
    network.run(seconds: 2)
    #expect(PartingTests.closes(network) == 2)
  }

  /// A partner that is there no more is lost, which is said once; back again, it has keys again.
  @Test func lost() {
    let network = PartingTests.joined()
    network.gateways[1].isUp = false
    network.act(0) { $0.want("g1", now: network.now) }
    network.run(seconds: 120)
    #expect(network.gateways[0].events.filter { $0 == .failed(partner: "g1", .lost) }.count == 1)
    #expect(network.gateways[0].exchange.failure(of: "g1") == .lost)
    #expect(network.gateways[0].outbound["g1"] != nil)
    network.gateways[1].isUp = true
    network.run(seconds: 60)
    guard case .established? = network.gateways[0].events.last else {
      Issue.record("\(network.gateways[0].events)")
      return
    }
    #expect(network.gateways[0].exchange.failure(of: "g1") == nil)
  }

  /// Without traffic keys go on both sides and stay away; traffic brings them back.
  @Test func idle() {
    let network = PartingTests.joined { $0.idleClose = .seconds(1800) }
    network.act(0) { $0.closeIdle("g1", now: network.now) }
    network.run(seconds: 600)
    #expect(network.gateways[0].events.last == .idle(partner: "g1"))
    #expect(network.gateways[1].events.last == .idle(partner: "g0"))
    #expect(network.gateways.allSatisfy { $0.inbound.isEmpty && $0.outbound.isEmpty })
    network.act(1) { $0.want("g0", now: network.now) }
    network.run(seconds: 1)
    #expect(network.areJoined(0, 1) && network.violations.isEmpty)
  }

  /// A side that does not close for want of traffic is told that the other one does, and waits for traffic too. After
  /// any other CLOSE it comes back half a minute later, because it may be the only one that can.
  @Test(arguments: [true, false]) func idleOnOneSideOnly(isIdle: Bool) {
    let network = PartingTests.joined()
    network.act(0) { exchange in
      if isIdle { exchange.closeIdle("g1", now: network.now) } else { exchange.closeAll(now: network.now) }
    }
    network.run(seconds: 600)
    #expect(network.areJoined(0, 1) != isIdle)
    #expect(network.gateways[1].exchange.isIdle("g0") == isIdle)
    if isIdle { network.act(1) { $0.want("g0", now: network.now) } }
    network.run(seconds: 1)
    #expect(network.areJoined(0, 1) && network.violations.isEmpty)
  }

  /// Other programs are told nothing private.
  @Test func idleOfAnotherProgram() throws {
    let network = PartingTests.joined { $0.isForeign = true }
    network.act(0) { $0.closeIdle("g1", now: network.now) }
    let close = try #require(network.wire.compactMap { HIPPacket($0.bytes) }.first { $0.kind == .close })
    #expect(close.content(.notification) == nil)
  }

  /// Many, of which every other one is acknowledged: each is sent again when it is due, in order.
  @Test func againstAnOracle() throws {
    let identities = (0..<8).map { _ in HostIdentity.generate(.ed25519) }
    let own = HostIdentity.generate(.ed25519)
    var random = Seeded(4)
    var farewells = Farewells()
    var oracle: [(at: MonotonicTime, number: Int)] = []
    var now = MonotonicTime(nanoseconds: 1_000_000_000)
    for _ in 0..<4000 {
      now = now.adding(nanoseconds: random.next() % 60_000_000)
      let number = Int(truncatingIfNeeded: random.next() % 8)
      let pair = Responder.Pair(local: own.tag, remote: identities[number].tag)
      switch random.next() % 3 {
      case 0:
        let farewell = Farewells.Farewell(
          [UInt8(number)], along: KeyingNetwork.path(to: 0), echo: [UInt8(number)],
          to: identities[number].publicIdentity, now: now)
        farewells.add(farewell, pair)
        oracle.removeAll { $0.number == number }
        oracle.append((farewell.at, number))
      case 1:
        var builder = HIPBuilder(.closeAck, from: pair.remote, to: pair.local)
        builder.append(.echoResponseSigned, [UInt8(number)])
        builder.appendSignature(by: identities[number])
        farewells.takeAcknowledgment(try #require(HIPPacket(builder.finish())), pair)
        oracle.removeAll { $0.number == number }
      default:
        let due = oracle.filter { $0.at <= now }.map { [UInt8($0.number)] }
        oracle.removeAll { $0.at <= now }
        #expect(farewells.takeDue(now).map(\.packet) == due)
      }
      #expect(farewells.deadline == oracle.first?.at && farewells.isEmpty == oracle.isEmpty)
    }
  }
}
