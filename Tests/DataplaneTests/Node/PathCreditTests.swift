import PacketIO
import TestSupport
import Testing

@testable import Dataplane

/// What goes to where a peer was heard, before it has answered there (RFC 8046 §5.6).
@Suite struct PathCreditTests {
  private let new = Path.path(77)

  /// A packet from one side's host to the other's.
  private static func packet(from side: Int, size: Int) -> [UInt8] {
    let addresses = side == 0 ? ("10.1.0.1", "10.2.0.1") : ("10.2.0.1", "10.1.0.1")
    return PacketSketch(
      addresses.0, addresses.1, .udp(sourcePort: 9, destinationPort: 9),
      payload: [UInt8](repeating: 1, count: size - 28)
    ).bytes
  }

  /// Two that have probed each other, with nothing under way.
  private func pair(links: UInt32 = 1) throws -> NodePair {
    let pair = try NodePair(links: links, seed: 9)
    pair.run(seconds: 3, packetsPerSecond: 20)
    pair.expectAll()
    for gateway in pair.gateways { gateway.sent = [] }
    return pair
  }

  /// Alpha sends a packet that comes to beta by another path; where beta sends data of `size` bytes then, one packet a time.
  private func answers(_ pair: NodePair, heard: Int, sizes: [Int]) throws -> [Path] {
    let (alpha, beta) = (pair.gateways[0], pair.gateways[1])
    alpha.read([PathCreditTests.packet(from: 0, size: heard)])
    let sealed = try #require(alpha.sent.last?.datagram)
    beta.receive(Train(sealed, path: new))
    beta.sent = []
    return try sizes.map { size in
      beta.read([PathCreditTests.packet(from: 1, size: size)])
      defer { beta.sent = [] }
      return try #require(beta.sent.first { $0.datagram.count > size }).path
    }
  }

  /// As many bytes as have come go there, in the same moment; more go where they went before.
  @Test func asManyAsHaveCome() throws {
    let pair = try pair()
    let old = pair.links[0].path(to: 0)
    #expect(try answers(pair, heard: 1000, sizes: [400, 400, 400, 100]) == [new, new, old, new])
    #expect(pair.gateways[1].peer("alpha").value.path == old)
  }

  /// Who is heard where it was before has not moved: nothing goes elsewhere.
  @Test func aCopyFromElsewhere() throws {
    let pair = try pair()
    let (alpha, beta) = (pair.gateways[0], pair.gateways[1])
    let old = pair.links[0].path(to: 0)
    #expect(try answers(pair, heard: 1000, sizes: [100]) == [new])
    alpha.read([PathCreditTests.packet(from: 0, size: 100)])
    beta.receive(Train(try #require(alpha.sent.last?.datagram), path: old))
    beta.read([PathCreditTests.packet(from: 1, size: 100)])
    #expect(beta.sent.allSatisfy { $0.path == old } && !beta.sent.isEmpty)
  }

  /// After a second what came is used up by time.
  @Test func creditEnds() throws {
    let pair = try pair()
    let old = pair.links[0].path(to: 0)
    #expect(try answers(pair, heard: 1000, sizes: [100]) == [new])
    let beta = pair.gateways[1]
    beta.tick(pair.now.adding(nanoseconds: PathCredit.interval))
    beta.sent = []
    beta.read([PathCreditTests.packet(from: 1, size: 100)])
    #expect(try #require(beta.sent.first { $0.datagram.count > 100 }).path == old)
  }

  /// With a choice of paths, what comes by another one of them is no reason to send there.
  @Test func anotherPathOfTheList() throws {
    let pair = try pair(links: 2)
    let (alpha, beta) = (pair.gateways[0], pair.gateways[1])
    alpha.read([PathCreditTests.packet(from: 0, size: 1000)])
    beta.receive(Train(try #require(alpha.sent.last?.datagram), path: pair.links[1].path(to: 0)))
    beta.sent = []
    beta.read([PathCreditTests.packet(from: 1, size: 100)])
    #expect(try #require(beta.sent.first { $0.datagram.count > 100 }).path == pair.links[0].path(to: 0))
  }

  /// Never more in a second than has come in it, whatever comes and goes.
  @Test func againstAnOracle() {
    var random = SeededNumbers(seed: 3)
    var credit = PathCredit(new, now: .seconds(0))
    var (now, start) = (MonotonicTime.seconds(0), MonotonicTime.seconds(0))
    var (came, went) = (0, 0)
    for _ in 0..<100_000 {
      now = now.adding(nanoseconds: random.next() % 20_000_000)
      if now.nanoseconds(since: start) >= 1_000_000_000 { (start, came, went) = (now, 0, 0) }
      let count = Int32(random.next() % 65_536)
      if random.next() % 2 == 0 {
        credit.earn(count, now: now)
        came += Int(count)
      } else {
        let isPaid = credit.pay(count, now: now)
        #expect(isPaid == (went + Int(count) <= came))
        if isPaid { went += Int(count) }
      }
    }
  }

  /// A peer that sends as fast as it likes from a new address has no more than a number holds.
  @Test func aLongStream() {
    var credit = PathCredit(new, now: .seconds(0))
    for _ in 0..<100_000 { credit.earn(65_535, now: .seconds(0)) }
    let paid = [Int32.max, 1].map { credit.pay($0, now: .seconds(0)) }
    #expect(paid == [true, false])
  }
}
