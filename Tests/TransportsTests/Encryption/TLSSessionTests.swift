import Glibc
import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Transports

/// TLS between two ends in memory, cut at random: what comes out is what went in, whatever the wire makes of it.
@Suite struct TLSSessionTests {
  /// Carries what both ends have for the wire, in pieces of random sizes, until nothing is left.
  private func carry(_ a: TLSEnd, _ b: TLSEnd, _ random: inout SeededNumbers, most: Int = 48_000) {
    while true {
      var hasMoved = false
      for (from, to) in [(a, b), (b, a)] {
        let limit = [1, 5, 6, 100, 1400, 16_406, most].randomElement(using: &random)!
        let bytes = from.give(Int.random(in: 1...limit, using: &random))
        if !bytes.isEmpty { to.take(bytes) }
        hasMoved = hasMoved || !bytes.isEmpty
      }
      if !hasMoved { return }
    }
  }

  /// Random bytes, of which all tests take theirs.
  private static let noise: [UInt8] = {
    var random = SeededNumbers(seed: 3)
    return random.bytes(60_000)
  }()

  private func bytes(_ count: Int, _ random: inout SeededNumbers) -> [UInt8] {
    let start = Int.random(in: 0...Self.noise.count - count, using: &random)
    return Array(Self.noise[start..<start + count])
  }

  /// A certificate is renewed: who comes then is shown the new one, and who was there goes on under the old one.
  @Test func aCertificateIsRenewed() throws {
    var random = SeededNumbers(seed: 9)
    let (old, new) = (try TestCertificate(name: "a.example.org"), try TestCertificate(name: "b.example.org"))
    let context = try TLSContext(showing: try old.server)
    let first = [TLSEnd(client: "a.example.org", authorities: old.chain), TLSEnd(server: context)]
    carry(first[0], first[1], &random)
    #expect(first.allSatisfy { $0.isOpen })
    try context.show(try new.server)
    let second = [TLSEnd(client: "b.example.org", authorities: new.chain), TLSEnd(server: context)]
    carry(second[0], second[1], &random)
    #expect(second.allSatisfy { $0.isOpen })
    // A key that is another's changes nothing.
    #expect(throws: TLSCertificate.Problem.anotherKey) {
      try TLSCertificate(chain: old.chain, key: KeyMaterial(new.key))
    }
    let third = [TLSEnd(client: "a.example.org", authorities: old.chain), TLSEnd(server: context)]
    carry(third[0], third[1], &random)
    #expect(!third[0].isOpen && third[0].figures.certificateRefused == 1)
    #expect(first[0].seal([Self.noise]))
    carry(first[0], first[1], &random)
    #expect(first[1].received.starts(with: Self.noise.prefix(1000)))
  }

  @Test(arguments: 0..<12) func whatGoesInComesOut(seed: Int) throws {
    var random = SeededNumbers(seed: UInt64(seed))
    let ends = [TLSEnd(), try TLSEnd(server: nil)]
    carry(ends[0], ends[1], &random)
    #expect(ends.allSatisfy { $0.isOpen && $0.figures.handshakes == 1 })
    // The oracle: what each side was given, one behind the other.
    var said: [[UInt8]] = [[], []]
    for _ in 0..<12 {
      let side = Int.random(in: 0...1, using: &random)
      var pieces = (0..<Int.random(in: 1...20, using: &random)).map { _ in
        bytes([0, 2, 40, 1400, 9000, 20_000].randomElement(using: &random)!, &random)
      }
      // As the link does: what was not sealed is given again, and nothing while something has yet to go.
      while pieces.contains(where: { !$0.isEmpty }) {
        let before = ends[side].sent
        guard ends[side].seal(pieces) else { break }
        carry(ends[0], ends[1], &random)
        var gone = ends[side].sent - before
        #expect(gone > 0)
        while gone > 0 {
          let count = min(gone, pieces[0].count)
          said[side] += pieces[0].prefix(count)
          pieces[0].removeFirst(count)
          if pieces[0].isEmpty { pieces.removeFirst() }
          gone -= count
        }
      }
    }
    #expect(ends[1].received == said[0] && ends[0].received == said[1])
    #expect(said.allSatisfy { $0.count > 100_000 })
    #expect(ends.allSatisfy { $0.statuses.allSatisfy { $0 == -Int(EAGAIN) } })
    ends[0].bidFarewell()
    carry(ends[0], ends[1], &random)
    #expect(ends[1].statuses.last == 0 && ends[1].ending == ECONNRESET && ends[1].figures.failed == 0)
  }

  /// One byte that another has changed ends the stream, wherever it is, and nothing false comes out.
  @Test(arguments: 0..<40) func anAlteredByteEndsTheStream(seed: Int) throws {
    var random = SeededNumbers(seed: UInt64(seed))
    let (client, server) = (TLSEnd(), try TLSEnd(server: nil))
    carry(client, server, &random)
    let text = bytes(40_000, &random)
    #expect(client.seal([text]))
    var wire = client.give(Int.max)
    wire[Int.random(in: 0..<wire.count, using: &random)] ^= UInt8(1) << UInt8(seed & 7)
    server.take(wire)
    // The length of the last record may have grown, and its end is waited for.
    let isWaiting = server.ending == nil
    if isWaiting { server.take(bytes(17_000, &random)) }
    #expect(server.ending == EPROTO && server.figures.failed == 1)
    #expect(text.starts(with: server.received) && server.received.count < text.count)
    // Nothing more, ever.
    let count = server.received.count
    server.take(client.seal([text]) ? client.give(Int.max) : [1])
    #expect(server.received.count == count)
  }

  /// The certificate is looked at where a name is given, and only there.
  @Test func aNameIsChecked() throws {
    var random = SeededNumbers(seed: 1)
    let certificate = try TestCertificate(name: "relay.example.org")
    func meet(_ name: String?, _ authorities: [UInt8]?) throws -> (TLSEnd, TLSEnd) {
      let ends = (TLSEnd(client: name, authorities: authorities), try TLSEnd(server: certificate.server))
      carry(ends.0, ends.1, &random)
      return ends
    }
    let right = try meet("relay.example.org", certificate.chain)
    #expect(right.0.isOpen && right.1.isOpen)
    #expect(try meet(nil, nil).0.isOpen)
    for (name, authorities) in [
      ("other.example.org", certificate.chain), ("relay.example.org", try TestCertificate(name: "x").chain),
      ("relay.example.org", nil),
    ] as [(String, [UInt8]?)] {
      let (client, server) = try meet(name, authorities)
      #expect(client.ending == EKEYREJECTED && client.figures.certificateRefused == 1)
      #expect(!server.isOpen && server.figures.failed == 1 && client.figures.failed == 0)
    }
  }

  @Test func certificatesAndKeysAreChecked() throws {
    let (one, other) = (try TestCertificate(name: "a"), try TestCertificate(name: "b"))
    #expect(throws: TLSCertificate.Problem.noCertificate) { try TLSCertificate(chain: [], key: KeyMaterial(one.key)) }
    #expect(throws: TLSCertificate.Problem.noKey) {
      try TLSCertificate(chain: one.chain, key: KeyMaterial(one.chain))
    }
    #expect(throws: TLSCertificate.Problem.anotherKey) {
      try TLSCertificate(chain: one.chain, key: KeyMaterial(other.key))
    }
    // A chain.
    _ = try TLSCertificate(chain: one.chain + other.chain, key: KeyMaterial(one.key))
  }

  /// Strangers have so many handshakes in a second, each origin an eighth of them; those that go on are not counted.
  @Test func handshakesAreLimited() throws {
    var limit = HandshakeLimit(perSecond: 16)
    func second(_ number: UInt64) -> MonotonicTime { MonotonicTime(nanoseconds: number * 1_000_000_000) }
    func admitted(_ address: UInt32, at time: MonotonicTime) -> Int {
      (0..<10).count { _ in limit.admit(IPAddress(v4: address), now: time) }
    }
    #expect(admitted(1, at: second(5)) == 2)
    #expect((2...20).map { admitted(UInt32($0), at: second(5)) }.reduce(0, +) == 14)
    #expect(admitted(21, at: second(5)) == 0)
    #expect(admitted(21, at: second(6)) == 2)
    // Whoever has one site of IPv6 has many origins, and a quarter all together.
    let ofSite = (0..<8).flatMap { network in
      (0..<10).map { _ in limit.admit(IPAddress(v6High: 0x2001_0DB8_0000_0100 + network, low: 0), now: second(7)) }
    }
    #expect(ofSite.count { $0 } == 4)

    // Of one origin, one: silence, an end and noise are none, and a hello is from its first byte on.
    var sessions = TLSSessions(streams: 5, server: try TLSContext(showing: nil), client: nil, handshakes: 8)
    let pool = BufferPool(count: 1)
    let bytes = pool.bytes(try #require(pool.take()))
    var statuses: [Int] = []
    for (place, said) in [nil, [], Array("GET / HTTP/1.1\r\n\r\n".utf8), [22], [22]].enumerated() {
      var ends: [Int32] = [-1, -1]
      #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
      defer { for end in ends { close(end) } }
      if let said { _ = said.isEmpty ? shutdown(ends[0], Int32(SHUT_WR)) : Int32(send(ends[0], said, said.count, 0)) }
      sessions.accept(place)
      statuses.append(sessions.receive(place, ends[1], into: bytes, from: TLSEnd.origin, now: second(8)))
    }
    #expect(statuses == [-EAGAIN, 0, -EPROTO, -EAGAIN, -EBUSY].map { Int($0) })
    let tooMany = sessions.figures.tooMany
    #expect(tooMany == 1)

    let server = try TLSEnd(server: nil, handshakes: 1)
    let client = TLSEnd()
    let hello = client.give(Int.max)
    for byte in hello { server.take([byte]) }
    #expect(server.figures.tooMany == 0 && server.statuses.allSatisfy { $0 == -Int(EAGAIN) })
  }
}
