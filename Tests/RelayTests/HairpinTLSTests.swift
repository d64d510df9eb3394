import Glibc
import PacketIO
import Testing
import TransportSupport

@testable import Relay
@testable import Transports

extension HairpinNetworks {
  /// Hairpins whose gateways come inside TLS: all of it by one port, and nothing by another.
  @Suite struct HairpinTLSTests {
    private static let endpoint = HairpinLab.endpoint(port: HairpinLab.tlsPort)

    /// Two tickets at a time, of the same two gateways at the same port; each side's stream is its own.
    @Test(arguments: [true, false]) func packetsComeThrough(bothEncrypted: Bool) async throws {
      try await HairpinLab.run {
        let lab = try HairpinLab { $0.tls.listen = [Self.endpoint] }
        let tickets = [lab.ticket(), lab.ticket()]
        let files = tickets.map { ticket in
          [HairpinEnd.first, .second].map { lab.sample.file(ticket, $0, proxy: HairpinLab.endpoint()) }
        }
        let a = files.map { HairpinTransport.Entry($0[0], tlsAt: Self.endpoint) }
        let b = files.map {
          bothEncrypted ? HairpinTransport.Entry($0[1], tlsAt: Self.endpoint) : HairpinTransport.Entry($0[1], .udp)
        }
        let gateways = [try HairpinLab.Gateway(a), try HairpinLab.Gateway(b)]
        let isOpen = lab.until(gateways, within: 8) { gateways.allSatisfy { $0.counter("hairpins-open") == 2 } }
        #expect(isOpen)
        #expect(gateways[0].counter("tls-handshakes") == 2)
        for (number, entries) in [a, b].enumerated() {
          let (sender, receiver) = (gateways[number], gateways[1 - number])
          for entry in entries {
            receiver.received = []
            let packets = (0..<400).map { HairpinLab.packet($0, size: 1400) }
            for start in stride(from: 0, to: 400, by: 20) {
              sender.send(Array(packets[start..<start + 20]), to: entry.path(transport: 2))
              lab.until(gateways) { receiver.received.count == start + 20 }
            }
            #expect(receiver.received == packets)
          }
        }
        #expect(gateways[1].paths == Set(b.map { $0.path(transport: 2) }))
        #expect(gateways[0].paths == Set(a.map { $0.path(transport: 2) }))
        #expect(lab.server.engine.statistics[.notTaken] == 0)
        // The proxy ends one: its gateway comes back, by a new stream, and the other has noticed nothing.
        lab.server.cut(SideIndex(place: 0))
        #expect(lab.until(gateways, within: 8) { gateways[0].counter("hairpins-opened") == 3 })
        #expect(lab.until(gateways, within: 8) { gateways[0].counter("hairpins-open") == 2 })
        gateways[1].received = []
        gateways[0].send([HairpinLab.packet(7, size: 1000)], to: a[0].path(transport: 2))
        #expect(lab.until(gateways) { gateways[1].received == [HairpinLab.packet(7, size: 1000)] })
      }
    }

    /// A ticket for UDP alone is of no use there, and who is no gateway finds a web server.
    @Test func othersGetNoPort() async throws {
      try await HairpinLab.run {
        let lab = try HairpinLab { $0.tls.listen = [Self.endpoint] }
        let ticket = lab.ticket { $0.first.encapsulations = [.udp] }
        let entry = HairpinTransport.Entry(
          lab.sample.file(ticket, .first, proxy: HairpinLab.endpoint()), tlsAt: Self.endpoint)
        let gateway = try HairpinLab.Gateway([entry])
        #expect(lab.until([gateway]) { gateway.counter("hairpin-refusals") == 1 })
        #expect(gateway.transport.reason(entry) == .encapsulationNotAllowed)
        // In the clear, at that port: no TLS, so no word.
        let stranger = Stranger(to: HairpinLab.tlsPort)
        stranger.say(
          RecordFramer.prefix + StreamOracle.record(HairpinMessage.hello(nonce: .zero, token: .zero).encoded))
        #expect(lab.until([gateway]) { stranger.isEnded })
      }
    }
  }
}
