import Dataplane
import Gateway
import Glibc
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// What the RFCs ask of address translation, one test each, of the kernel under the ruleset that is made for it.
  /// Hosts and servers are real stacks in namespaces of their own.
  @Suite struct SharingRequirementTests {
    private static let first = Place(SharedLAN.servers[0], 7000)
    private static let second = Place(SharedLAN.servers[1], 7001)
    private static let third = Place(SharedLAN.servers[1], 7002)

    /// Hosts' sockets at port 5000 and servers' at three places.
    private struct Sockets {
      let one: Talker
      let two: Talker
      let servers: [(Talker, Place)]

      init(_ lan: SharedLAN, port: UInt16 = 5000) async throws {
        one = try await Talker(.udp, in: lan.one, at: Place(SharedLAN.hosts[0], port), patience: 0.5)
        two = try await Talker(.udp, in: lan.two, at: Place(SharedLAN.hosts[1], port), patience: 0.5)
        var servers: [(Talker, Place)] = []
        for place in [first, second, third] {
          servers.append((try await Talker(.udp, in: lan.server, at: place, patience: 0.5), place))
        }
        self.servers = servers
      }
    }

    // MARK: UDP

    /// RFC 4787 REQ-1: one external address and port towards everybody. And the port is the host's own.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req1EndpointIndependentMapping() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        for (server, place) in sockets.servers {
          #expect(try await lan.ask(sockets.one, server, at: place) == Place(SharedLAN.outside, 5000))
        }
      }
    }

    /// RFC 4787 REQ-3: no two hosts have one external port, not even towards different destinations. The second keeps
    /// what it was given, towards all of them.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req3NoPortOverloading() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first)?.port == 5000)
        var ports: Set<UInt16> = []
        for (server, place) in sockets.servers.reversed() {
          let seen = try #require(try await lan.ask(sockets.two, server, at: place))
          #expect(seen.address == SharedLAN.outside)
          ports.insert(seen.port)
        }
        #expect(ports.count == 1 && ports.allSatisfy(SharingPorts.spare.contains), "\(ports)")
        #expect(try await lan.ask(sockets.one, sockets.servers[2].0, at: Self.third)?.port == 5000)
      }
    }

    /// RFC 4787 REQ-3 a: well-known ports become well-known ports, others others.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req3aPortRanges() async throws {
      try await SharedLAN.with { lan in
        for port in [500, 1023, 1024] as [UInt16] {
          let sockets = try await Sockets(lan, port: port)
          #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first)?.port == port)
          let other = try #require(try await lan.ask(sockets.two, sockets.servers[0].0, at: Self.first))
          #expect(other.port != port && (other.port < 1024) == (port < 1024), "\(port) became \(other.port)")
        }
      }
    }

    /// The gateway's own ports are nobody else's.
    @Test(.timeLimit(.minutes(1))) func reservedPortsAreTheGateways() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan, port: 4500)
        let seen = try #require(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first))
        #expect(SharingPorts.spare.contains(seen.port))
      }
    }

    /// RFC 4787 REQ-5: two minutes at least, five advised once there is an answer.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req5Timers() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        sockets.one.send("x", to: Self.first)
        #expect(try await sockets.servers[0].0.receive() != nil)
        let unanswered = try #require(try await lan.remaining("udp", "dst=\(Self.first.address)", "[UNREPLIED]"))
        #expect((115...120).contains(unanswered))
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first) != nil)
        // The kernel waits two seconds before it takes an exchange for more than a question and its answer.
        try await Task.sleep(for: .milliseconds(2300))
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first) != nil)
        let answered = try #require(try await lan.remaining("udp", "dst=\(Self.first.address)"))
        #expect((295...300).contains(answered))
      }
    }

    /// RFC 4787 REQ-6: what goes out keeps the mapping.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req6OutboundRefresh() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        sockets.one.send("x", to: Self.first)
        try await Task.sleep(for: .milliseconds(2200))
        let before = try #require(try await lan.remaining("udp", "dst=\(Self.first.address)"))
        sockets.one.send("x", to: Self.first)
        _ = try await sockets.servers[0].0.receive()
        _ = try await sockets.servers[0].0.receive()
        #expect(try #require(try await lan.remaining("udp", "dst=\(Self.first.address)")) > before)
      }
    }

    /// RFC 4787 REQ-8, the stringent kind: only who was sent to may answer, and a refused packet takes no port away.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req8FilteringByAddressAndPort() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first) != nil)
        for (server, _) in sockets.servers[1...] {
          server.send("stranger", to: Place(SharedLAN.outside, 5000))
          #expect(try await sockets.one.receive() == nil)
        }
        // As in hole punching: the stranger was first, and is still answered from the same port.
        #expect(try await lan.ask(sockets.one, sockets.servers[1].0, at: Self.second)?.port == 5000)
      }
    }

    /// RFC 4787 REQ-8, the open kind, on request.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req8EndpointIndependentFiltering() async throws {
      var sharing = SharedLAN.sharing
      sharing.filtering = .endpointIndependent
      try await SharedLAN.with(sharing) { lan in
        let sockets = try await Sockets(lan)
        sockets.servers[1].0.send("too early", to: Place(SharedLAN.outside, 5000))
        #expect(try await sockets.one.receive() == nil)
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first) != nil)
        sockets.servers[2].0.send("stranger", to: Place(SharedLAN.outside, 5000))
        let heard = try #require(try await sockets.one.receive())
        #expect(heard.from == Self.third)
        sockets.one.send("answer", to: heard.from)
        #expect(try await sockets.servers[2].0.receive()?.from == Place(SharedLAN.outside, 5000))
      }
    }

    /// RFC 4787 REQ-9: hosts reach each other by their external addresses, and see external sources.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req9Hairpinning() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first)?.port == 5000)
        let other = try #require(try await lan.ask(sockets.two, sockets.servers[0].0, at: Self.first))
        #expect(try await lan.ask(sockets.two, sockets.one, at: Place(SharedLAN.outside, 5000)) == other)
        #expect(try await lan.ask(sockets.one, sockets.two, at: other) == Place(SharedLAN.outside, 5000))
        // Also for one that the base network has not seen yet.
        let fresh = try await Talker(.udp, in: lan.two, at: Place(SharedLAN.hosts[1], 6000), patience: 0.5)
        let seen = try await lan.ask(fresh, sockets.one, at: Place(SharedLAN.outside, 5000))
        #expect(seen == Place(SharedLAN.outside, 6000))
        #expect(try await lan.ask(fresh, sockets.servers[0].0, at: Self.first) == seen)
      }
    }

    /// RFC 4787 REQ-11: deterministic: a conflict that comes later changes no mapping.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req11Determinism() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        #expect(try await lan.ask(sockets.two, sockets.servers[1].0, at: Self.second)?.port == 5000)
        let other = try #require(try await lan.ask(sockets.one, sockets.servers[1].0, at: Self.second))
        for (server, place) in sockets.servers {
          #expect(try await lan.ask(sockets.two, server, at: place)?.port == 5000)
          #expect(try await lan.ask(sockets.one, server, at: place) == other)
        }
      }
    }

    /// RFC 4787 REQ-12: an ICMP error ends no mapping; and the host hears of it.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req12ErrorsEndNoMapping() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first)?.port == 5000)
        let closed = try await Talker(.udp, in: lan.one, at: Place(SharedLAN.hosts[0], 5001))
        #expect(try await closed.connect(Place(SharedLAN.servers[0], 9)) == 0)
        closed.send("nobody there")
        #expect(try await closed.failure() == ECONNREFUSED)
        #expect(try await lan.remaining("udp", "sport=5001", "dport=9") != nil)
        #expect(try await lan.ask(sockets.one, sockets.servers[1].0, at: Self.second)?.port == 5000)
      }
    }

    /// RFC 4787 REQ-13, RFC 5382 REQ-9: a packet that is too large is answered by the gateway, with its next size.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req13DoNotFragment() async throws {
      try await SharedLAN.with { lan in
        try lan.gateway.ip(["link set base mtu 1300"])
        let host = try await Talker(.udp, in: lan.one, patience: 1)
        host.set(Int(IPPROTO_IP), IP_MTU_DISCOVER, Int32(IP_PMTUDISC_DO))
        #expect(try await host.connect(Self.first) == 0)
        host.send([UInt8](repeating: 0, count: 1400))
        #expect(try await host.failure() == EMSGSIZE)
      }
    }

    /// RFC 4787 REQ-14: fragments, both ways.
    @Test(.timeLimit(.minutes(1))) func rfc4787Req14Fragments() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        for size in [1472, 1473, 4000, 20_000] {
          #expect(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first, size: size)?.port == 5000)
        }
      }
    }

    // MARK: TCP

    /// A connection from a host's port to a server; who the server sees.
    private static func connect(
      _ lan: SharedLAN, _ host: Namespace, at source: Place, to place: Place
    ) async throws -> (client: Talker, server: Talker, seen: Place)? {
      let listener = try await Talker(.tcp, in: lan.server, at: place)
      listener.listen()
      let client = try await Talker(.tcp, in: host, at: source)
      guard try await client.connect(place) == 0, let (server, seen) = try await listener.accept() else { return nil }
      return (client, server, seen)
    }

    /// RFC 5382 REQ-1 and REQ-7: one port towards everybody, and each port one host's.
    @Test(.timeLimit(.minutes(1))) func rfc5382Req1And7Mapping() async throws {
      try await SharedLAN.with { lan in
        var kept: [Talker] = []
        for place in [Self.first, Self.second, Self.third] {
          let made = try #require(try await Self.connect(lan, lan.one, at: Place(SharedLAN.hosts[0], 5000), to: place))
          #expect(made.seen == Place(SharedLAN.outside, 5000))
          kept += [made.client, made.server]
        }
        var ports: Set<UInt16> = []
        for server in SharedLAN.servers {
          let place = Place(server, 7010)
          let made = try #require(try await Self.connect(lan, lan.two, at: Place(SharedLAN.hosts[1], 5000), to: place))
          ports.insert(made.seen.port)
          kept += [made.client, made.server]
        }
        #expect(ports.count == 1 && ports.allSatisfy(SharingPorts.spare.contains), "\(ports)")
      }
    }

    /// RFC 5382 REQ-2: all valid sequences: a simultaneous open.
    @Test(.timeLimit(.minutes(1))) func rfc5382Req2SimultaneousOpen() async throws {
      try await SharedLAN.with { lan in
        let source = Place(SharedLAN.hosts[0], 5000)
        let before = try #require(try await Self.connect(lan, lan.one, at: source, to: Self.second))
        let server = try await Talker(.tcp, in: lan.server, at: Self.first, patience: 3)
        async let called = server.connect(Place(SharedLAN.outside, 5000))
        try await Task.sleep(for: .milliseconds(200))
        let client = try await Talker(.tcp, in: lan.one, at: source, patience: 3)
        #expect(try await client.connect(Self.first) == 0)
        #expect(try await called == 0)
        client.send("both began")
        #expect(try await server.receive()?.bytes == Array("both began".utf8))
        _ = before
      }
    }

    /// RFC 5382 REQ-4: no answer to a SYN that nobody asked for, so that the host can still call back.
    @Test(.timeLimit(.minutes(1))) func rfc5382Req4UnsolicitedSyn() async throws {
      try await SharedLAN.with { lan in
        let made = try await Self.connect(lan, lan.one, at: Place(SharedLAN.hosts[0], 5000), to: Self.second)
        let server = try await Talker(.tcp, in: lan.server, at: Self.first, patience: 1.5)
        #expect(try await server.connect(Place(SharedLAN.outside, 5000)) == EINPROGRESS)
        #expect(made != nil)
      }
    }

    /// RFC 5382 REQ-5: two hours and four minutes, and four minutes before and after.
    @Test(.timeLimit(.minutes(1))) func rfc5382Req5Timers() async throws {
      try await SharedLAN.with { lan in
        let made = try #require(
          try await Self.connect(lan, lan.one, at: Place(SharedLAN.hosts[0], 5000), to: Self.first))
        made.client.send("x")
        #expect(try await made.server.receive() != nil)
        let established = try #require(try await lan.remaining("tcp", "sport=5000", "ESTABLISHED"))
        #expect((7430...7440).contains(established))
        // Towards nobody: a SYN alone.
        let silent = try await Talker(.tcp, in: lan.one, at: Place(SharedLAN.hosts[0], 5001), patience: 0.3)
        try await lan.nft("table inet silence { chain c { type filter hook forward priority 10; tcp dport 9 drop; }; }")
        #expect(try await silent.connect(Place(SharedLAN.servers[0], 9)) != 0)
        let closing = made.client
        closing.shutDown()
        #expect(try await made.server.receive()?.bytes == [])
        let left = try #require(try await lan.remaining("tcp", "sport=5000"))
        #expect((200...240).contains(left))
      }
    }

    /// RFC 5382 REQ-8: hairpinning, with an external source.
    @Test(.timeLimit(.minutes(1))) func rfc5382Req8Hairpinning() async throws {
      try await SharedLAN.with { lan in
        // The host's port is known because it has called somebody from it.
        let source = Place(SharedLAN.hosts[0], 5000)
        let before = try #require(try await Self.connect(lan, lan.one, at: source, to: Self.first))
        let listener = try await Talker(.tcp, in: lan.one, at: source)
        listener.listen()
        let client = try await Talker(.tcp, in: lan.two, at: Place(SharedLAN.hosts[1], 6000))
        #expect(try await client.connect(Place(SharedLAN.outside, 5000)) == 0)
        let (server, seen) = try #require(try await listener.accept())
        #expect(seen == Place(SharedLAN.outside, 6000))
        server.send("hello")
        #expect(try await client.receive()?.bytes == Array("hello".utf8))
        _ = before
      }
    }

    /// RFC 5382 REQ-10: an ICMP error ends no connection.
    @Test(.timeLimit(.minutes(1))) func rfc5382Req10ErrorsEndNoConnection() async throws {
      try await SharedLAN.with { lan in
        let made = try #require(
          try await Self.connect(lan, lan.one, at: Place(SharedLAN.hosts[0], 5000), to: Self.first))
        let forger = try await Talker(.icmp, in: lan.server)
        // Host unreachable about the connection's packet, as the outside sees it.
        let quoted = Quote.header(6, from: Place(SharedLAN.outside, 5000), to: Self.first)
        forger.send(Quote.error(3, code: 1, about: quoted), to: Place(SharedLAN.outside, 0))
        made.client.send("still here")
        #expect(try await made.server.receive()?.bytes == Array("still here".utf8))
        #expect(try await lan.remaining("tcp", "sport=5000", "ESTABLISHED") ?? 0 > 7000)
      }
    }

    // MARK: ICMP

    /// RFC 5508 REQ-1: queries of both hosts, with one identifier.
    @Test(.timeLimit(.minutes(1))) func rfc5508Req1Queries() async throws {
      try await SharedLAN.with { lan in
        for host in [lan.one, lan.two] {
          try await Pings(from: host, to: SharedLAN.servers[0]).expectAnswers([0, 56, 1472, 3000])
        }
        let hosts = [
          try await Talker(.icmp, in: lan.one, patience: 0.5), try await Talker(.icmp, in: lan.two, patience: 0.5),
        ]
        for host in hosts { host.send(Quote.echo(identifier: 0x4242), to: Place(SharedLAN.servers[0], 0)) }
        for host in hosts {
          let answer = try #require(try await host.receive())
          #expect(answer.from.address == SharedLAN.servers[0])
          #expect(answer.bytes[20] == 0 && answer.bytes[24...25].elementsEqual([0x42, 0x42]))
        }
      }
    }

    /// RFC 5508 REQ-2: a minute, where the machine's parameter says so; the gateway warns where it does not.
    @Test(.timeLimit(.minutes(1))) func rfc5508Req2QueryTimeout() async throws {
      try await SharedLAN.with { lan in
        try lan.gateway.set("net.netfilter.nf_conntrack_icmp_timeout", "60")
        try await Pings(from: lan.one, to: SharedLAN.servers[0]).expectAnswers([56])
        #expect((50...60).contains(try #require(try await lan.remaining("icmp", "dst=\(SharedLAN.servers[0])"))))
      }
    }

    /// RFC 5508 REQ-3: an error with a wrong checksum is dropped. REQ-4: a right one arrives, and what it quotes is
    /// what the host has sent. REQ-6: it does not refresh. REQ-9 and REQ-4 b: one about nothing is dropped.
    @Test(.timeLimit(.minutes(1))) func rfc5508Req3And4And6ErrorsFromOutside() async throws {
      try await SharedLAN.with { lan in
        let sockets = try await Sockets(lan)
        #expect(try await lan.ask(sockets.two, sockets.servers[0].0, at: Self.first)?.port == 5000)
        // So that the address and the port are others outside.
        let seen = try #require(try await lan.ask(sockets.one, sockets.servers[0].0, at: Self.first))
        let listener = try await Talker(.icmp, in: lan.one, patience: 0.5)
        let forger = try await Talker(.icmp, in: lan.server)
        let outside = Place(SharedLAN.outside, 0)
        let good = Quote.error(3, code: 4, about: Quote.header(17, from: seen, to: Self.first))
        var bad = good
        bad[2] ^= 1
        forger.send(bad, to: outside)
        #expect(try await listener.receive() == nil)
        let stranger = Quote.header(17, from: Place(SharedLAN.outside, seen.port), to: Place("198.51.100.9", 7))
        forger.send(Quote.error(3, code: 4, about: stranger), to: outside)
        #expect(try await listener.receive() == nil)
        try await Task.sleep(for: .milliseconds(1200))
        let before = try #require(try await lan.remaining("udp", "src=\(SharedLAN.hosts[0])"))
        forger.send(good, to: outside)
        let heard = try #require(try await listener.receive())
        let quoted = Array(heard.bytes[28...])
        #expect(Quote.source(quoted) == Place(SharedLAN.hosts[0], 5000) && Quote.target(quoted) == Self.first)
        #expect(try #require(try await lan.remaining("udp", "src=\(SharedLAN.hosts[0])")) <= before)
      }
    }

    /// RFC 5508 REQ-5: an error from inside goes out with the gateway's address, and quotes what was sent to it.
    @Test(.timeLimit(.minutes(1))) func rfc5508Req5ErrorsFromInside() async throws {
      var sharing = SharedLAN.sharing
      sharing.services = [
        .init(
          name: "s", transport: .udp, port: 8000,
          target: PacketIO.Endpoint(address: IPAddress(SharedLAN.hosts[0])!, port: 9))
      ]
      try await SharedLAN.with(sharing) { lan in
        let listener = try await Talker(.icmp, in: lan.server)
        let client = try await Talker(.udp, in: lan.server, at: Self.first)
        client.send("nobody listens", to: Place(SharedLAN.outside, 8000))
        let heard = try #require(try await listener.receive())
        #expect(heard.from.address == SharedLAN.outside && heard.bytes[20] == 3)
        let quoted = Array(heard.bytes[28...])
        #expect(Quote.source(quoted) == Self.first && Quote.target(quoted) == Place(SharedLAN.outside, 8000))
      }
    }

    /// RFC 5508 REQ-7: errors about hairpinned packets.
    @Test(.timeLimit(.minutes(1))) func rfc5508Req7HairpinnedErrors() async throws {
      try await SharedLAN.with { lan in
        let server = try await Talker(.udp, in: lan.server, at: Self.first)
        do {
          let short = try await Talker(.udp, in: lan.one, at: Place(SharedLAN.hosts[0], 5000))
          #expect(try await lan.ask(short, server, at: Self.first)?.port == 5000)
        }
        let caller = try await Talker(.udp, in: lan.two)
        #expect(try await caller.connect(Place(SharedLAN.outside, 5000)) == 0)
        // A thread that has just answered may hold the socket a moment longer: until then somebody hears it.
        let isRefused = try await eventually(within: 30) {
          caller.send("closed by now")
          return try await caller.failure() == ECONNREFUSED
        }
        #expect(isRefused)
      }
    }

    /// RFC 5508 REQ-8 and RFC 1812 §5.3.1: the gateway says itself where a packet's life ends.
    @Test(.timeLimit(.minutes(1))) func rfc5508Req8TimeExceeded() async throws {
      try await SharedLAN.with { lan in
        let listener = try await Talker(.icmp, in: lan.one)
        let host = try await Talker(.udp, in: lan.one)
        host.set(Int(IPPROTO_IP), IP_TTL, 1)
        host.send("x", to: Self.first)
        let heard = try #require(try await listener.receive())
        #expect(heard.from.address == "192.168.1.1" && heard.bytes[20] == 11)
      }
    }

    // MARK: The rest

    /// A stranger who routes to a host through the gateway is refused, and no untranslated source leaves.
    @Test(.timeLimit(.minutes(1))) func nobodyComesPastTheTranslation() async throws {
      try await SharedLAN.with { lan in
        try lan.server.ip(["route add 192.168.0.0/16 via 198.51.100.1"])
        let host = try await Talker(.udp, in: lan.one, at: Place(SharedLAN.hosts[0], 5000), patience: 0.5)
        let stranger = try await Talker(.udp, in: lan.server, at: Self.first)
        stranger.send("straight", to: Place(SharedLAN.hosts[0], 5000))
        #expect(try await host.receive() == nil)
      }
    }

    /// IPv6 of the LAN goes out with the gateway's address, where its prefix is under `lan`.
    @Test(.timeLimit(.minutes(1))) func ipv6IsSharedToo() async throws {
      try await SharedLAN.with { lan in
        try await Pings(from: lan.one, to: "2001:db8:1::2").expectAnswers([0, 56, 1452, 3000])
        try await Tunnel.transfer(from: lan.one, to: lan.server, "2001:db8:1::2", bytes: 300_001)
      }
      try await SharedLAN.with(nil) { lan in
        let pings = try await blocking {
          try Tool.run("sh", ["-c", "ping -6 -c 1 -W 1 2001:db8:1::2 || true"], in: lan.one)
        }
        #expect(pings.contains("100% packet loss"))
      }
    }
  }
}

/// What the ruleset gives to those whose own port is taken.
enum SharingPorts {
  static let spare: ClosedRange<UInt16> = 20_000...22_047
}

/// ICMP messages and what they quote.
private enum Quote {
  static func checksum(_ bytes: [UInt8]) -> [UInt8] {
    var sum = 0
    for place in stride(from: 0, to: bytes.count, by: 2) {
      sum += Int(bytes[place]) << 8 | (place + 1 < bytes.count ? Int(bytes[place + 1]) : 0)
    }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    return [UInt8(~sum >> 8 & 255), UInt8(~sum & 255)]
  }

  private static func octets(_ address: String) -> [UInt8] { address.split(separator: ".").compactMap { UInt8($0) } }
  private static func pair(_ port: UInt16) -> [UInt8] { [UInt8(port >> 8), UInt8(port & 255)] }

  /// The beginning of a packet: IP header and eight bytes.
  static func header(_ transport: UInt8, from: Place, to: Place) -> [UInt8] {
    var bytes: [UInt8] =
      [0x45, 0, 0, 40, 0, 1, 0x40, 0, 63, transport, 0, 0] + octets(from.address) + octets(to.address)
    bytes.replaceSubrange(10..<12, with: checksum(bytes))
    return bytes + pair(from.port) + pair(to.port) + (transport == 17 ? [0, 20, 0, 0] : [0, 0, 0, 1])
  }

  static func error(_ type: UInt8, code: UInt8, about quoted: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = [type, code, 0, 0, 0, 0, 0x05, 0x14] + quoted
    bytes.replaceSubrange(2..<4, with: checksum(bytes))
    return bytes
  }

  static func echo(identifier: UInt16) -> [UInt8] {
    var bytes: [UInt8] = [8, 0, 0, 0] + pair(identifier) + [0, 1, 1, 2, 3, 4]
    bytes.replaceSubrange(2..<4, with: checksum(bytes))
    return bytes
  }

  private static func place(_ packet: [UInt8], _ address: Int, _ port: Int) -> Place {
    Place(
      packet[address..<address + 4].map(String.init).joined(separator: "."),
      UInt16(packet[port]) << 8 | UInt16(packet[port + 1]))
  }

  static func source(_ packet: [UInt8]) -> Place { place(packet, 12, 20) }
  static func target(_ packet: [UInt8]) -> Place { place(packet, 16, 22) }
}
