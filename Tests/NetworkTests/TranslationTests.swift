import Dataplane
import Lab
import PacketIO
import Testing

extension NetworkTests {
  /// Sites with one and the same network talk to each other; see `AlikeSites` for what they look like.
  @Suite struct TranslationTests {
    private let hosts = [AlikeSites.host4, AlikeSites.host6]

    /// Three sites, and each pair of them at once: real stacks at all ends, and every byte is compared.
    @Test(.timeLimit(.minutes(2)), arguments: [.all, []] as [TunOffloads])
    func threeSitesWithOneNetworkTalk(offloads: TunOffloads) async throws {
      try await AlikeSites.with(3, offloads: offloads) { sites in
        try await sites.waitForSpaces()
        try await forEachPair(of: sites) { near, far, address, host in
          // With fragments; IPv6 senders learn the size from the first that is too large.
          try await Pings(from: near, to: address).expectAnswers([0, 56, 1300])
          _ = try await Pings(from: near, to: address).run([3000, 3000]) as [String]
          try await Pings(from: near, to: address).expectAnswers([3000])
          try await Tunnel.transfer(from: near, to: far, address, there: host, bytes: 2_000_003)
        }
        // After the transfers, which fill the queue that they would share.
        try await forEachPair(of: sites) { near, far, address, host in
          var flood = VerifiedFlood(
            from: near, to: far, address: address, addressThere: host, sizes: [8, 700, 1300], count: 300)
          flood.window /= 2 * hosts.count
          let arrived = try await flood.run()
          #expect(arrived.isIntact, "\(arrived)")
        }
        for site in 1...3 {
          let statistics = await sites.gateway(site).statistics()
          #expect(statistics.inboundDrops.allSatisfy { $0.reason != .spoofedSource }, "\(statistics.inboundDrops)")
          for peer in statistics.peers {
            let counts = try #require(peer.translation?.packets)
            #expect(counts.sent > 1000 && counts.received > 1000, "\(peer.name) \(counts)")
          }
        }
      }
    }

    /// All pairs at once, with each host there under the address by which it is known here.
    private func forEachPair(
      of sites: AlikeSites, _ body: @escaping @Sendable (Namespace, Namespace, String, String) async throws -> Void
    ) async throws {
      try await withThrowingTaskGroup(of: Void.self) { group in
        for (from, to) in sites.pairs {
          for host in hosts {
            let address = try #require(try await sites.address(of: host, at: to, knownAt: from))
            group.addTask { try await body(sites.host(from), sites.host(to), address, host) }
          }
        }
        try await group.waitForAll()
      }
    }

    /// Every hop answers under an address that means something where the trace is made: routers of the other site's
    /// network under the one by which they are known.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("traceroute"), "needs traceroute"))
    func tracesShowSensibleHops() async throws {
      try await AlikeSites.with(2) { sites in
        try await sites.waitForSpaces()
        for (hosts, near, far) in [
          ((AlikeSites.host4, AlikeSites.deep4), "192.168.1.1", "10.77.0.2"),
          ((AlikeSites.host6, AlikeSites.deep6), "fd01::1", "fd77::2"),
        ] {
          let router = try #require(try await sites.address(of: hosts.0, at: 2, knownAt: 1))
          let address = try #require(try await sites.address(of: hosts.1, at: 2, knownAt: 1))
          // By UDP, so the last hop answers with an error too, and by echo requests.
          for method in ["-U", "-I"] {
            let trace = try await blocking {
              try Tool.run("traceroute", ["-n", "-q", "1", "-w", "2", method, address], in: sites.host(1))
            }
            let hops = trace.split(separator: "\n").dropFirst().map { $0.split(separator: " ").dropFirst().first ?? "" }
            #expect(hops == [near, far, router, address].map { Substring($0) }, "\(method) \(trace)")
          }
          // The sender learns of a port that nobody listens on: the error and what it quotes are translated.
          let refused = try await blocking { try sites.host(1).inside { Refusal.asks(address) } }
          #expect(refused, "\(address) does not refuse")
        }
      }
    }

    /// A name server at one site tells the other site's hosts the addresses that they can reach; scapy is server and
    /// client, with and without EDNS. What is signed arrives as it was, and is counted.
    @Test(.timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs scapy"), arguments: [true, false])
    func nameServersSpeakOfReachableAddresses(isV4: Bool) async throws {
      try await AlikeSites.with(2) { sites in
        try await sites.waitForSpaces()
        let known4 = try #require(try await sites.address(of: AlikeSites.host4, at: 2, knownAt: 1))
        let known6 = try #require(try await sites.address(of: AlikeSites.host6, at: 2, knownAt: 1))
        let far = sites.host(2)
        let server = try await blocking {
          let script = Judges.script("names.py")
          let address = isV4 ? AlikeSites.host4 : AlikeSites.host6
          let server = try ProcessHandle(Judges.python, ["-B", script, "serve", address], in: far)
          try server.waitUntil("it served", timeout: 30) { $0.output.contains("serving") }
          return server
        }
        defer { server.terminate() }
        let asked = NameQuestions(server: isV4 ? known4 : known6, known4: known4, known6: known6)
        let answers = try await Judges.run("names.py", asked, in: sites.host(1), answer: [String: [String]].self)
        for manner in ["plain", "edns"] {
          #expect(answers["\(manner) A"] == [known4])
          #expect(answers["\(manner) AAAA"] == [known6])
          // The server is asked for the name of the address that it knows.
          #expect(answers["\(manner) PTR4"] == ["host.alike."])
          #expect(answers["\(manner) PTR6"] == ["host.alike."])
        }
        #expect(answers["signed A"]?.first == AlikeSites.host4)
        let there = try #require(await sites.gateway(2).statistics().peers[0].translation).packets
        // Eight answers, and four questions on their way in.
        #expect(there.dnsRewritten == 12 && there.dnsSigned == 1 && there.dnsUnfit == 0, "\(there)")
      }
    }

    private struct NameQuestions: Encodable {
      let server: String
      let known4: String
      let known6: String
    }

    /// One site has all of 192.168.0.0/16 and fd01::/48, the other a part of it: both find a space of their length.
    @Test(.timeLimit(.minutes(1))) func prefixesOfDifferentLengthsOverlap() async throws {
      let wide = try ["192.168.0.0/16", "fd01::/48"].map { try #require(Prefix($0)) }
      let narrow = try AlikeSites.lan.map { try #require(Prefix($0)) }
      try await AlikeSites.with(2) { site, configuration in
        if site == 1 {
          configuration.localPrefixes = wide
        } else {
          configuration.peers[0].prefixes = configuration.peers[0].prefixes.filter { !narrow.contains($0) } + wide
          configuration.interface.routes = configuration.peers[0].prefixes
        }
      } _: { sites in
        try await sites.waitForSpaces()
        let spaces = await sites.gateway(2).statistics().peers[0].translation
        #expect(spaces?.theirs.map(\.intermediate.length) == [16, 48])
        #expect(spaces?.knownAs.map(\.intermediate.length) == [24, 64])
        for (from, to) in sites.pairs {
          for host in hosts + [AlikeSites.deep4, AlikeSites.deep6] {
            let address = try #require(try await sites.address(of: host, at: to, knownAt: from))
            try await Pings(from: sites.host(from), to: address).expectAnswers([0, 1300])
          }
          for host in hosts {
            let address = try #require(try await sites.address(of: host, at: to, knownAt: from))
            try await Tunnel.transfer(from: sites.host(from), to: sites.host(to), address, there: host, bytes: 500_003)
          }
        }
      }
    }

    /// The third site comes while the first two transfer; one of them takes a prefix back; the others do not notice.
    @Test(.timeLimit(.minutes(2))) func sitesComeAndPrefixesGoWhileTrafficFlows() async throws {
      try await AlikeSites.with(3) { site, configuration in
        if site != 3 { configuration = AlikeSites.configuration(of: site, among: [1, 2]) }
      } _: { sites in
        try await sites.waitForSpaces(among: [1, 2])
        let address = try #require(try await sites.address(of: AlikeSites.host4, at: 2, knownAt: 1))
        var transfer = BulkTransfer(from: sites.host(1), to: sites.host(2), address: address, amount: .seconds(6))
        transfer.addressThere = AlikeSites.host4
        transfer.verifies = true
        async let result = blocking { [transfer] in try transfer.run() }
        try await Task.sleep(for: .seconds(1))

        for site in [1, 2] {
          try await sites.gateway(site).apply(AlikeSites.configuration(of: site, among: [1, 2, 3]))
        }
        try await sites.waitForSpaces()
        let third = try #require(try await sites.address(of: AlikeSites.host4, at: 3, knownAt: 1))
        try await Pings(from: sites.host(1), to: third).expectAnswers()

        let six = try #require(try await sites.address(of: AlikeSites.host6, at: 2, knownAt: 1))
        try await Pings(from: sites.host(1), to: six).expectAnswers()
        var less = AlikeSites.configuration(of: 2, among: [1, 2, 3])
        less.localPrefixes.removeAll { !$0.address.isV4 }
        try await sites.gateway(2).apply(less)
        let isGone = try await eventually {
          try await sites.address(of: AlikeSites.host6, at: 2, knownAt: 1) == nil
        }
        #expect(isGone)
        let problems: [String] = try await Pings(from: sites.host(1), to: six).run([56])
        #expect(!problems.isEmpty)

        let transferred = try await result
        #expect(transferred.isIntact && transferred.bytes > 1_000_000)
        #expect(try await sites.address(of: AlikeSites.host4, at: 2, knownAt: 1) == address)
      }
    }

    /// Both gateways configured alike by hand, and one alone for a partner that cannot translate.
    @Test(.timeLimit(.minutes(1)), arguments: [TranslationConfiguration.Mode.fixed, .oneSided])
    func spacesConfiguredByHandWork(mode: TranslationConfiguration.Mode) async throws {
      let lan = try AlikeSites.lan.map { try #require(Prefix($0)) }
      let first = try ["100.112.1.0/24", "fd99:1::/64"].map { try #require(Prefix($0)) }
      let second = try ["100.112.2.0/24", "fd99:2::/64"].map { try #require(Prefix($0)) }
      func pairs(_ known: [Prefix]) -> [PrefixPair] { zip(lan, known).map { PrefixPair(real: $0, intermediate: $1) } }
      let (ours, theirs) = (pairs(first), pairs(second))
      try await AlikeSites.with(2) { site, configuration in
        let peer = configuration.peers[0]
        if site == 1 {
          configuration.peers[0].translation = TranslationConfiguration(mode: mode, knownAs: ours, theirs: theirs)
        } else if mode == .fixed {
          configuration.peers[0].translation = TranslationConfiguration(mode: mode, knownAs: theirs, theirs: ours)
        } else {
          // It routes what the other is called, and knows of nothing else.
          configuration.localPrefixes = []
          configuration.peers[0].prefixes = peer.prefixes.filter { !lan.contains($0) } + first
          configuration.peers[0].translation.mode = .fixed
          configuration.interface.routes = configuration.peers[0].prefixes
        }
      } _: { sites in
        for host in hosts {
          let there = try #require(try await sites.address(of: host, at: 2, knownAt: 1))
          try await Pings(from: sites.host(1), to: there).expectAnswers([0, 1300])
          try await Tunnel.transfer(from: sites.host(1), to: sites.host(2), there, there: host, bytes: 2_000_003)
          let address = try #require(IPAddress(host))
          let here = try #require(ours.lazy.compactMap { $0.intermediate(of: address) }.first)
          try await Pings(from: sites.host(2), to: "\(here)").expectAnswers([0, 1300])
        }
      }
    }
  }
}
