import Identity
import PacketIO
import Testing

/// Packets byte for byte, and that nobody can change them.
@Suite struct VectorTests {
  @Test func tagsAreThoseOfThePackets() {
    let (p256, ed) = (Exchange.all[0], Exchange.all[1])
    #expect(p256.initiator.tag.description == "2001:22:dcea:9bd2:f186:cea9:7b90:e009")
    #expect(p256.responder.tag.description == "2001:22:5e00:b603:1978:be6e:85fb:4e7e")
    #expect(ed.initiator.tag.description == "2001:25:9680:ec57:60c3:1372:d9cc:becd")
    #expect(ed.responder.tag.description == "2001:25:3744:c53d:8a7c:5027:b180:4e60")
  }

  @Test(arguments: Exchange.all) func packetsAreReproduced(exchange: Exchange) throws {
    #expect(Exchange.published.count == 24)
    for (name, bytes) in exchange.packets {
      #expect(bytes == Exchange.published["\(exchange.name) \(name)"], "\(exchange.name) \(name)")
    }
  }

  @Test(arguments: Exchange.all) func packetsAreReadBack(exchange: Exchange) throws {
    for (name, bytes) in exchange.packets {
      let packet = try #require(HIPPacket(bytes), "\(name)")
      #expect(HIPPacket.problem(bytes) == nil)
      #expect(packet.header == withPacketBytes(bytes) { HIPHeader.peek($0) })
      #expect(exchange.isProven(packet) == (packet.kind != .i1), "\(name)")
      #expect(packet.unknownCritical == nil)
      for type in HIPParameter.allCases {
        let content = packet.content(type)
        #expect(packet.contents(type) == (content.map { [$0] } ?? []))
        #expect(packet.types.contains(type.rawValue) == (content != nil))
      }
    }
    let r1 = try #require(HIPPacket(exchange.r1))
    #expect(r1.sender == exchange.responder.tag && r1.receiver == exchange.initiator.tag)
    #expect(r1.content(.dhGroupList).map(Array.init) == exchange.groups)
    #expect(r1.content(.hostID).flatMap { PublicHostIdentity(hostID: $0) } == exchange.responder.publicIdentity)
    #expect(r1.content(.kemList) == nil)
    let i2 = try #require(HIPPacket(exchange.i2))
    let solution = try #require(i2.content(.solution))
    #expect(Array(solution.suffix(exchange.j.count)) == exchange.j)
  }

  /// Sizes of IDENTITY's table; each has to go through wherever 1280 bytes do.
  @Test func packetsAreAsLongAsPromised() {
    let sizes = Exchange.all.map { $0.packets.map(\.bytes.count) }
    #expect(sizes[0] == [48, 384, 480, 184, 264, 864, 224, 216, 208, 120, 192, 192])
    #expect(sizes[1] == [48, 304, 368, 168, 216, 816, 208, 200, 176, 120, 176, 176])
  }

  /// A changed byte makes a packet unreadable, or unproven. But for what the RFC leaves out: paddings behind the last
  /// parameter's content, and an R1's receiver, opaque and #I. Nothing proves an I1.
  @Test(arguments: Exchange.all) func noChangedByteIsAccepted(exchange: Exchange) throws {
    for (name, bytes) in exchange.packets where name != "I1" {
      let packet = try #require(HIPPacket(bytes))
      let last = try #require(packet.types.last.flatMap(HIPParameter.init(rawValue:)))
      let end = try #require(packet.content(last)).endIndex
      var free: Set<Int> = Set(end..<bytes.count)
      if packet.kind == .r1 { free.formUnion(try #require(packet.content(.puzzle)).indices.dropFirst(2)) }
      for place in bytes.indices {
        var changed = bytes
        changed[place] ^= 1 << (place % 8)
        let isAccepted = HIPPacket(changed).map { exchange.isProven($0) } ?? false
        #expect(isAccepted == free.contains(place), "\(exchange.name) \(name), byte \(place)")
      }
    }
  }

  @Test(arguments: Exchange.all) func noCutPacketIsAccepted(exchange: Exchange) {
    for (name, bytes) in exchange.packets where name != "I1" {
      for count in 0..<bytes.count {
        var cut = Array(bytes.prefix(count))
        #expect(HIPPacket(cut) == nil, "\(name) cut to \(count)")
        guard count >= 40, count % 8 == 0 else { continue }
        cut[1] = UInt8(count / 8 - 1)
        #expect(!(HIPPacket(cut).map { exchange.isProven($0) } ?? false), "\(name) cut to \(count)")
      }
    }
  }

  @Test(arguments: Exchange.all) func proofsOfOthersAreRefused(exchange: Exchange) throws {
    let i2 = try #require(HIPPacket(exchange.i2))
    let r2 = try #require(HIPPacket(exchange.r2))
    let (own, foreign) = (exchange.macKey(of: exchange.initiator), exchange.macKey(of: exchange.responder))
    #expect(i2.hasValidMAC(key: own, suite: exchange.suite))
    #expect(!i2.hasValidMAC(key: foreign, suite: exchange.suite))
    for suite in HostIdentitySuite.allCases where suite != exchange.suite {
      #expect(!i2.hasValidMAC(key: own, suite: suite))
    }
    #expect(!i2.hasValidMAC2(key: own, suite: exchange.suite, hostID: []))
    #expect(!i2.hasValidSignature(by: exchange.responder.publicIdentity))
    #expect(!i2.hasValidSignature2(by: exchange.initiator.publicIdentity))
    #expect(!r2.hasValidMAC2(key: foreign, suite: exchange.suite, hostID: exchange.initiator.publicIdentity.hostID))
    #expect(!r2.hasValidMAC(key: foreign, suite: exchange.suite))
    let r1 = try #require(HIPPacket(exchange.r1))
    #expect(!r1.hasValidSignature(by: exchange.responder.publicIdentity))
    // Signed by somebody, but not by whom the packet says it is from.
    let stranger = HostIdentity.generate(.p256)
    var builder = HIPBuilder(.notify, from: exchange.responder.tag, to: exchange.initiator.tag)
    builder.append(.notification, [0, 0, 0, 1])
    builder.appendSignature(by: stranger)
    #expect(!(try #require(HIPPacket(builder.finish())).hasValidSignature(by: stranger.publicIdentity)))
  }

  @Test(arguments: HostIdentity.Kind.allCases) func everyKindOfKeySignsPackets(kind: HostIdentity.Kind) throws {
    let identity = HostIdentity.generate(kind)
    let other = Exchange.all[0].initiator.tag
    var builder = HIPBuilder(.notify, from: identity.tag, to: other)
    builder.append(.hostID, identity.publicIdentity.hostID)
    builder.append(.notification, [0, 0, 0, 1])
    builder.appendSignature(by: identity)
    let packet = try #require(HIPPacket(builder.finish()))
    #expect(packet.hasValidSignature(by: identity.publicIdentity))
    let read = try #require(packet.content(.hostID).flatMap { PublicHostIdentity(hostID: $0) })
    #expect(read == identity.publicIdentity && read.tag == identity.tag && read.tag.suite == read.suite)
    var r1 = HIPBuilder(r1From: identity.tag)
    let count = identity.publicIdentity.suite.hashLength
    r1.append(.puzzle, [0, 38, 0, 0] + [UInt8](repeating: 0, count: count))
    r1.appendSignature2(by: identity)
    let filled = R1Template(r1).filled(receiver: other, i: [UInt8](repeating: 3, count: count), opaque: 0xABCD)
    let answer = try #require(HIPPacket(filled))
    #expect(answer.receiver == other && answer.hasValidSignature2(by: identity.publicIdentity))
    #expect(answer.content(.puzzle)?.dropFirst(2).prefix(3) == [0xAB, 0xCD, 3])
  }
}

@Suite struct PuzzleTests {
  private func isSolved(_ exchange: Exchange, _ k: UInt8, i: [UInt8]? = nil, j: [UInt8]) -> Bool {
    Puzzle.isSolved(
      difficulty: k, i: i ?? exchange.i, initiator: exchange.initiator.tag, responder: exchange.responder.tag, j: j,
      suite: exchange.suite)
  }

  /// That of suite 2 is the file's.
  @Test func theSmallestSolutionIsFound() {
    let exchange = Exchange.all[0]
    #expect(exchange.j == [UInt8](repeating: 0, count: 46) + [0x02, 0xE9])
    #expect(isSolved(exchange, 10, j: exchange.j))
    var wrong = exchange.j
    wrong[0] ^= 1
    #expect(!isSolved(exchange, 10, j: wrong))
    // Nothing is asked for.
    #expect(isSolved(exchange, 0, j: wrong))
    #expect(!isSolved(exchange, 255, j: exchange.j))
  }

  @Test(arguments: Exchange.all) func otherLengthsSolveNothing(exchange: Exchange) {
    #expect(!isSolved(exchange, 0, j: []))
    #expect(!isSolved(exchange, 0, j: exchange.j + [0]))
    #expect(!isSolved(exchange, 0, i: exchange.i.dropLast(), j: exchange.j))
  }

  @Test(arguments: Exchange.all) func workIsBounded(exchange: Exchange) {
    func solve(_ k: UInt8, from start: UInt64, tries: Int) -> [UInt8]? {
      Puzzle.solve(
        difficulty: k, i: exchange.i, initiator: exchange.initiator.tag, responder: exchange.responder.tag,
        suite: exchange.suite, from: start, tries: tries)
    }
    #expect(solve(10, from: 0, tries: 100) == nil)
    #expect(solve(0, from: .max, tries: 1)?.suffix(8) == [255, 255, 255, 255, 255, 255, 255, 255])
    #expect(solve(0, from: 0, tries: 0) == nil && solve(0, from: 0, tries: -1) == nil)
    #expect(solve(4, from: .max - 1, tries: 1000).map { isSolved(exchange, 4, j: $0) } == true)
  }
}
