import PacketIO
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// Those who come to a relay's port for encrypted streams and are no gateways.
  @Suite struct RelayWebTests {
    private static func request(_ bytes: Int, body: Int = 0) -> [UInt8] {
      let head = Array("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(body)\r\nX: ".utf8)
      return head + [UInt8](repeating: 0x79, count: bytes) + Array("\r\n\r\n".utf8)
        + (0..<body).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    }

    private static func lab(_ server: UnixListener? = nil) throws -> HairpinLab {
      try HairpinLab {
        $0.tls.listen = [HairpinLab.endpoint(port: HairpinLab.tlsPort)]
        $0.tls.webServer = server?.path
      }
    }

    /// A head that is longer than what is read at a time, in one record: all of it has come, and no poll tells that.
    @Test(arguments: [10, 1300, 3000, 7000]) func aLongRequestIsAnswered(bytes: Int) async throws {
      try await HairpinLab.run {
        let lab = try Self.lab()
        let guest = try EncryptedGuest()
        guest.say(Self.request(bytes))
        lab.until([]) {
          guest.goOn()
          guest.fetch()
          return guest.hasEnded
        }
        #expect(guest.heard.starts(with: "HTTP/1.1 404 Not Found".utf8) && guest.hasEnded)
      }
    }

    /// The request reaches the web server as it is, and so does the answer the guest; then both are gone.
    @Test(arguments: [(10, 0), (3000, 100), (100, 500_000)]) func theWebServerAnswers(head: Int, body: Int) async throws
    {
      try await HairpinLab.run {
        let server = UnixListener()
        let lab = try Self.lab(server)
        let guest = try EncryptedGuest()
        let request = Self.request(head, body: body)
        guest.say(request)
        lab.until([], within: 10) {
          guest.goOn()
          server.fetch()
          return server.heard.count >= request.count
        }
        #expect(server.heard == request)
        let answer = (0..<700_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        var said = 0
        lab.until([], within: 10) {
          said += server.say(answer[said...])
          guest.fetch()
          return guest.heard.count >= answer.count
        }
        #expect(guest.heard == answer)
        server.end()
        lab.until([]) {
          guest.fetch()
          return guest.hasEnded
        }
        #expect(guest.hasEnded)
        #expect(lab.server.web.counters.first { $0.name == "http-handed-on" }?.value == 1)
      }
    }

    /// A web server that takes nothing: its visitor is not read, and costs nothing while he waits, whatever the server says.
    @Test func whoIsHeldBackRests() async throws {
      try await HairpinLab.run {
        let server = UnixListener()
        let lab = try Self.lab(server)
        let guest = try EncryptedGuest()
        let request = Self.request(10, body: 4_000_000)
        guest.say(request)
        lab.until([]) {
          guest.goOn()
          server.acceptAll()
          return lab.server.web.holdsBack(0)
        }
        try #require(lab.server.web.holdsBack(0))
        _ = server.say([1, 2, 3])
        for _ in 0..<50 { lab.turn() }
        for _ in 0..<100 {
          lab.turn()
          // A poll that fires at once would be there again after each turn.
          #expect(!lab.server.streams.table[0].isReceiving && lab.server.strangers.isEmpty)
        }
        lab.until([], within: 20) {
          guest.goOn()
          server.fetch()
          return server.heard.count >= request.count
        }
        #expect(server.heard == request)
        guest.fetch()
        #expect(guest.heard == [1, 2, 3])
      }
    }

    /// Whose partner does not keep up is not read, and costs nothing while it waits.
    @Test func whosePartnerIsSlowRests() async throws {
      try await HairpinLab.run {
        let endpoint = HairpinLab.endpoint(port: HairpinLab.tlsPort)
        let lab = try Self.lab()
        let ticket = lab.ticket()
        let files = [HairpinEnd.first, .second].map { lab.sample.file(ticket, $0, proxy: HairpinLab.endpoint()) }
        let entries = files.map { HairpinTransport.Entry($0, tlsAt: endpoint) }
        let (a, b) = (try HairpinLab.Gateway([entries[0]]), try HairpinLab.Gateway([entries[1]]))
        let isOpen = lab.until([a, b], within: 8) {
          a.counter("hairpins-open") == 1 && b.counter("hairpins-open") == 1
        }
        try #require(isOpen)
        // Half a second later its packets would be dropped.
        lab.standing = .current()
        let side = SideIndex(place: 0)
        var number = 0
        let waits = lab.until([a], within: 20) {
          a.send([HairpinLab.packet(number, size: 1400)], to: entries[0].path(transport: 2))
          number += 1
          return !lab.server.engine.sides[side.partner].stream.queue.isEmpty
        }
        try #require(waits)
        for _ in 0..<50 { lab.turn([a]) }
        let stream = lab.server.engine.sides[side].stream.place
        let place = try #require(stream)
        for _ in 0..<100 {
          lab.turn()
          let rests = !lab.server.streams.table[place].isReceiving && lab.server.engine.state.schedule.readyCount == 0
          #expect(rests)
        }
        #expect(lab.server.engine.statistics[.notTaken] == 0)
      }
    }
  }
}
