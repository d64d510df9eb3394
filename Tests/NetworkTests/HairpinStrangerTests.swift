import Dataplane
import Foundation
import Glibc
import Lab
import PacketIO
import Synchronization
import Testing
import Transports

extension NetworkTests {
  /// Floods at a relay through which two gateways talk: they go on, nothing of theirs is lost, and each kind of abuse is
  /// counted under its own name. Twenty thousand datagrams in a second: enough to cost a relay its time that answers them
  /// all, and few enough that no kernel on the way drops anybody's.
  @Suite(.serialized, .enabled(if: HairpinSite.isPossible, "needs nft, culvert and culvert-relay"))
  struct HairpinStrangerTests {
    /// What somebody does, and what the relay counts it as.
    enum Abuse: String, CaseIterable, CustomTestStringConvertible {
      case garbage, hellosOfOne, hellosOfMany, datagramsAtPorts, tokensAtPorts, silentStreams, halfRecords, noise

      var testDescription: String { rawValue }

      var counter: String {
        switch self {
        case .garbage: "malformed"
        case .hellosOfOne: "too-many-strangers"
        case .hellosOfMany: "hellos"
        case .datagramsAtPorts, .tokensAtPorts: "stranger"
        case .silentStreams, .halfRecords: "streams-refused"
        case .noise: "streams-malformed"
        }
      }
    }

    /// An abuse that goes on until it is told to stop.
    private final class Flood: Sendable {
      static let ports: ClosedRange<UInt16> = 21_000...21_007
      private static let first = IPAddress(v4: 0xC633_6464)
      private let ends = Atomic(false)
      let done = Atomic<UInt64>(0)

      func end() { ends.store(true, ordering: .relaxed) }

      /// On a thread of its own, in its namespace.
      func run(_ abuse: Abuse) {
        let control = PacketIO.Endpoint(address: IPAddress(v4: 0xC633_6409), port: 4501)
        var sockets = (0..<(abuse == .hellosOfMany ? 64 : 1)).map { number in
          UDPSocket.open(
            PacketIO.Endpoint(address: IPAddress(v4: Flood.first.v4 + UInt32(number)), port: 0), waits: true,
            bufferSize: 1 << 16)
        }
        var streams: [Int32] = []
        var number = 0
        while !ends.load(ordering: .relaxed) {
          for _ in 0..<20 {
            number += 1
            switch abuse {
            case .garbage: say([0, 0, 0, 0] + [UInt8](repeating: UInt8(number & 255), count: 60), sockets[0], control)
            case .hellosOfOne, .hellosOfMany:
              say(Flood.hello(number, token: 0), sockets[number % sockets.count], control)
            case .datagramsAtPorts:
              say([UInt8](repeating: 0x55, count: 200), sockets[0], port(number, control))
            case .tokensAtPorts: say(Flood.hello(number, token: 7), sockets[0], port(number, control))
            case .silentStreams: connect(control, saying: [], &streams)
            case .halfRecords: connect(control, saying: Array("IKETCP".utf8) + [0, 90, 0], &streams)
            case .noise: connect(control, saying: Array("GET / HTTP/1.1\r\n\r\n".utf8), &streams)
            }
            done.add(1, ordering: .relaxed)
          }
          usleep(1000)
        }
        sockets += streams
        for socket in sockets { close(socket) }
      }

      private func port(_ number: Int, _ control: PacketIO.Endpoint) -> PacketIO.Endpoint {
        PacketIO.Endpoint(
          address: control.address, port: Flood.ports.lowerBound + UInt16(number % Flood.ports.count))
      }

      private func say(_ bytes: [UInt8], _ socket: Int32, _ endpoint: PacketIO.Endpoint) {
        _ = UDPSocket.send(socket, bytes, to: SocketName(endpoint))
      }

      private func connect(_ endpoint: PacketIO.Endpoint, saying bytes: [UInt8], _ streams: inout [Int32]) {
        guard let stream = TCPSocket(dialling: endpoint.address)?.descriptor else { return }
        _ = fcntl(stream, F_SETFL, O_NONBLOCK)
        SocketName(endpoint).withPointer { _ = Glibc.connect(stream, $0, $1) }
        streams.append(stream)
        // A little later, when it is open.
        if streams.count > 10 { _ = send(streams[streams.count - 10], bytes, bytes.count, Int32(MSG_NOSIGNAL)) }
        if streams.count > 500 { close(streams.removeFirst()) }
      }

      /// A message of the protocol, as docs/HAIRPIN.md has it.
      private static func hello(_ number: Int, token: UInt8) -> [UInt8] {
        var bytes: [UInt8] = [0, 0, 0, 0, 0x43, 0x48, 0x50, 1, 1, 0, 0, 80]
        bytes += (0..<16).map { UInt8(truncatingIfNeeded: number >> ($0 & 3 * 8)) }
        bytes += [UInt8](repeating: token, count: 16)
        return bytes + [UInt8](repeating: 0, count: 80 - bytes.count)
      }
    }

    @Test(.timeLimit(.minutes(2)), arguments: Abuse.allCases)
    func gatewaysGoOnThroughAFlood(abuse: Abuse) async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      let stranger = site.network["nat-b"]
      try await blocking {
        try stranger.ip((100..<164).map { "addr add 198.51.100.\($0)/24 dev wan" })
      }
      try site.directory.write(
        "relay.yaml",
        """
        listen: ["0.0.0.0:4501", "[::]:4501"]
        public-key: control.key.pub
        ports: \(Flood.ports.lowerBound)-\(Flood.ports.upperBound)
        """)
      let files = try await site.issue(isV4: (true, true))
      let relay = try await site.startRelay()
      defer { relay.terminate() }
      let a = try await site.gateway(.a, try #require(files[.a]), .tcp)
      let b = try await site.gateway(.b, try #require(files[.b]), .udp)
      do {
        for dataplane in [a, b] {
          #expect(await eventually(within: 30) { await dataplane.statistics().transport("hairpins-open") == 1 })
        }
        let quiet = try await seconds { try await transfer(site) }
        let flood = Flood()
        async let running: Void = stranger.inside { flood.run(abuse) }
        #expect(await eventually(within: 30) { flood.done.load(ordering: .relaxed) > 2000 })
        var pings = Pings(from: site.network["a"], to: Side.b.inner4)
        pings.patience = 5
        let problems: [String] = try await pings.run([Int](repeating: 56, count: 100))
        #expect(problems == [])
        let flooded = try await seconds { try await transfer(site) }
        flood.end()
        try await running
        print("FIGURE: \(abuse.rawValue): 8 MiB took \(quiet) s without and \(flooded) s with it")
        // The hairpin is the same all the time.
        for dataplane in [a, b] { #expect(await dataplane.statistics().transport("hairpins-opened") == 1) }
        let isCounted = try await eventually(within: 30) {
          relay.signal(SIGUSR1)
          try await Task.sleep(for: .milliseconds(300))
          return relay.output.contains(", \(abuse.counter) ")
        }
        #expect(isCounted, "\(relay.output)")
      } catch {
        await a.stop()
        await b.stop()
        throw error
      }
      await a.stop()
      await b.stop()
    }

    private func transfer(_ site: HairpinSite) async throws {
      try await Tunnel.transfer(from: site.network["a"], to: site.network["b"], Side.b.inner4, bytes: 8 << 20)
    }

    private func seconds(_ body: () async throws -> Void) async throws -> Double {
      let start = monotonicSeconds()
      try await body()
      return monotonicSeconds() - start
    }

    /// A machine with two addresses in one network, of which the gateway behind a stateful firewall speaks to the second.
    @Test(.timeLimit(.minutes(1)), arguments: [Encapsulation.udp, .tcp])
    func aRelayAnswersFromTheAddressThatWasSpokenTo(kind: Encapsulation) async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      try await blocking {
        try site.network["relay"].ip([
          "addr add 192.0.2.10/24 dev wire-a", "addr add 2001:db8:2::10/64 dev wire-b nodad",
        ])
      }
      try await site.culvert([
        "ticket", "--key", "\(site.directory.path)/control.key", "--between", "a,b", "--proxy",
        "192.0.2.10:4501,[2001:db8:2::10]:4501", "--out", site.directory.path, "--force",
      ])
      let relay = try await site.startRelay()
      defer { relay.terminate() }
      let a = try await site.gateway(.a, try HairpinTicketFile(path: "\(site.directory.path)/a-b.a.ticket"), kind)
      let b = try await site.gateway(.b, try HairpinTicketFile(path: "\(site.directory.path)/a-b.b.ticket"), .udp)
      let isOpen = await eventually(within: 30) {
        let counts = (
          await a.statistics().transport("hairpins-open"), await b.statistics().transport("hairpins-open")
        )
        return counts == (1, 1)
      }
      #expect(isOpen)
      let problems: [String] = try await Pings(from: site.network["a"], to: Side.b.inner4).run([0, 56, 1300])
      #expect(problems == [])
      await a.stop()
      await b.stop()
    }
  }
}
