import Dataplane
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// Packets fit the path, whatever becomes of it:
  /// ```
  /// a: 192.0.2.1 ═══ .254 :router: .254 ═══ 198.51.100.2 :b   and the same in 2001:db8:0:1::/64, 2001:db8:0:2::/64
  /// ```
  @Suite struct PathFitTests {
    private static let topology = Topology(
      nodes: ["a", "router", "b"],
      wires: [
        Topology.Wire(
          .init("a", "wire", ["192.0.2.1/24", "2001:db8:0:1::1/64"]),
          .init("router", "left", ["192.0.2.254/24", "2001:db8:0:1::254/64"])),
        Topology.Wire(
          .init("router", "right", ["198.51.100.254/24", "2001:db8:0:2::254/64"]),
          .init("b", "wire", ["198.51.100.2/24", "2001:db8:0:2::2/64"])),
      ],
      routes: [
        Topology.Route("a", "default", via: "192.0.2.254"), Topology.Route("a", "::/0", via: "2001:db8:0:1::254"),
        Topology.Route("b", "default", via: "198.51.100.254"), Topology.Route("b", "::/0", via: "2001:db8:0:2::254"),
      ],
      routers: ["router"])

    private static func plan(overIPv6: Bool) -> TunnelPlan {
      var plan = TunnelPlan()
      plan.topology = topology
      plan.paths = [
        .a: TunnelPlan.path(overIPv6 ? "2001:db8:0:1::1" : "192.0.2.1"),
        .b: TunnelPlan.path(overIPv6 ? "2001:db8:0:2::2" : "198.51.100.2"),
      ]
      plan.raiseInterval = .seconds(2)
      return plan
    }

    /// Sets what fits through the router, both ways. It tells senders, unless that is forbidden.
    private static func set(mtu: Int?, on router: Namespace) throws {
      let limit = mtu.map { " mtu lock \($0)" } ?? ""
      try router.ip([
        "route replace 192.0.2.0/24 dev left\(limit)", "route replace 198.51.100.0/24 dev right\(limit)",
        "route replace 2001:db8:0:1::/64 dev left metric 256\(limit)",
        "route replace 2001:db8:0:2::/64 dev right metric 256\(limit)",
      ])
    }

    /// A path shrinks from 1500 to 1280 bytes and grows again, with the router's messages and without them, under
    /// streams and datagrams of both families: nothing stalls for three seconds, and in the end packets are as large as
    /// they were. All of it at once, because it takes its time.
    @Test(.timeLimit(.minutes(2)))
    func aPathThatShrinksAndGrows() async throws {
      try await withThrowingTaskGroup(of: Void.self) { group in
        for overIPv6 in [false, true] {
          for isSilent in [false, true] {
            group.addTask { try await Self.shrinkAndGrow(overIPv6: overIPv6, isSilent: isSilent) }
          }
        }
        try await group.waitForAll()
      }
    }

    private static func shrinkAndGrow(overIPv6: Bool, isSilent: Bool) async throws {
      let what = "over IPv\(overIPv6 ? 6 : 4), messages \(isSilent ? "blocked" : "delivered")"
      try await Tunnel.with(plan(overIPv6: overIPv6), isLossless: false) { tunnel in
        let (a, b, router) = (tunnel.a.namespace, tunnel.b.namespace, tunnel.network["router"])
        try await blocking {
          for host in [a, b] {
            // Hosts keep what they were told for ten minutes (RFC 1191 §6.3); these for less.
            try host.set("net.ipv4.route.mtu_expires", "2")
            try host.set("net.ipv6.route.mtu_expires", "2")
            try host.ip(["link set wire gso_max_segs 1"])
          }
          let verdict = isSilent ? "drop" : "accept"
          _ = try Tool.run(
            "nft", ["-f", "-"],
            input: """
              table inet messages {
                chain output {
                  type filter hook output priority 0
                  icmp type destination-unreachable counter \(verdict)
                  icmpv6 type packet-too-big counter \(verdict)
                }
              }
              """, in: router)
        }
        func sizes() async -> [Int?] {
          [
            await tunnel.a.dataplane.statistics().peers.first?.pathMTU,
            await tunnel.b.dataplane.statistics().peers.first?.pathMTU,
          ]
        }
        try await tunnel.measurePath()
        let widest = await sizes()
        #expect(widest.allSatisfy { ($0 ?? 0) > 1450 })
        let flows = try await blocking {
          [
            try SteadyFlow(.stream, from: a, to: b, Side.b.inner4),
            try SteadyFlow(.datagram, from: a, to: b, Side.b.inner6),
            try SteadyFlow(.stream, from: b, to: a, Side.a.inner6),
            try SteadyFlow(.datagram, from: b, to: a, Side.a.inner4),
          ]
        }
        try await Task.sleep(for: .seconds(1.5))
        try await blocking { try Self.set(mtu: 1280, on: router) }
        try await Task.sleep(for: .seconds(5))
        let narrow = await sizes()
        #expect(narrow.allSatisfy { (1200...1280).contains($0 ?? 0) }, "\(what): \(narrow)")
        try await blocking { try Self.set(mtu: nil, on: router) }
        let hasGrown = await eventually(within: 40) { await sizes() == widest }
        #expect(hasGrown, "\(what): it stays small")
        // What hosts were told has been forgotten by then.
        try await Task.sleep(for: .seconds(2.5))
        let wire = try await blocking { try Capture(a, "wire") }
        try await Task.sleep(for: .seconds(1))
        for flow in flows {
          let result = try await flow.finish()
          #expect(result.longestGap < 3, "\(what): \(flow.name) stood still")
          #expect(result.bytes > 300_000, "\(what): \(flow.name)")
        }
        let packets = try await wire.finish()
        for isOutgoing in [true, false] {
          let large = packets.count { $0.isOutgoing == isOutgoing && ($0.datagram()?.count ?? 0) > 1380 }
          #expect(large > 20, "\(what): only \(large) large packets \(isOutgoing ? "from" : "to") a")
        }
        // The path was too narrow indeed, and the router had something to say.
        let rules = try await blocking { try Tool.run("nft", ["list", "table", "inet", "messages"], in: router) }
        let counted = rules.split(separator: "\n").filter { $0.contains(overIPv6 ? "packet-too-big" : "unreachable") }
        #expect(counted.contains { !$0.contains("packets 0 ") && $0.contains("packets ") }, "\(what): \(rules)")
        for gateway in [tunnel.a, tunnel.b] {
          #expect(await gateway.dataplane.statistics().transport("send-error-too-big") == 0)
        }
      }
    }

    /// Anybody who can guess two addresses can send a "too big" message. The kernel believes it; a gateway does not.
    @Test(.timeLimit(.minutes(1)), arguments: [false, true])
    func forgedMessagesChangeNothing(overIPv6: Bool) async throws {
      try await Tunnel.with(overIPv6 ? .overIPv6 : TunnelPlan(), isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        let inner = overIPv6 ? Side.b.inner6 : Side.b.inner4
        let largest = overIPv6 ? 1352 : 1372
        try await Pings(from: a, to: inner).expectAnswers([largest])
        try await tunnel.measurePath()
        let before = await tunnel.a.dataplane.statistics().peers.first?.pathMTU
        let (victim, peer) = overIPv6 ? (Side.a.outer6, Side.b.outer6) : (Side.a.outer4, Side.b.outer4)
        let forged = overIPv6 ? 1280 : 600
        try await blocking {
          _ = try Tool.run(Judges.python, ["-B", Judges.script("forge_too_big.py"), victim, peer, "\(forged)"], in: b)
        }
        let believed = try await eventually {
          try await blocking { try Tool.run("ip", ["-n", a.name, "route", "get", peer]).contains("mtu \(forged)") }
        }
        #expect(believed, "the kernel saw no forgery, so nothing was tested")
        // Long enough for a black hole to be noticed.
        for _ in 0..<15 {
          try await Pings(from: a, to: inner).expectAnswers([largest, largest - 1])
          try await Task.sleep(for: .milliseconds(100))
        }
        let statistics = await tunnel.a.dataplane.statistics()
        #expect(statistics.peers.first?.pathMTU == before && (before ?? 0) > 1450)
        #expect(statistics.transport("send-error-too-big") == 0 && statistics.dropped(.exceedsPathMTU) == 0)
        try await Tunnel.transfer(from: a, to: b, inner, bytes: 3_000_001)
      }
    }

    /// Marks of the packets inside are on every packet outside, also on those a superpacket was cut into.
    @Test(
      .timeLimit(.minutes(1)), .enabled(if: Judges.hasTshark, "needs tshark"), arguments: [false, true], [false, true])
    func everySegmentIsMarked(overIPv6: Bool, copiesDSCP: Bool) async throws {
      var plan = overIPv6 ? TunnelPlan.overIPv6 : TunnelPlan()
      plan.measuresPath = false
      plan.copiesDSCP = copiesDSCP
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        try await blocking {
          for host in [a, b] { try host.set("net.ipv4.tcp_ecn", "1") }
          try a.ip(["link set wire gso_max_segs 1"])
          _ = try Tool.run(
            "nft", ["-f", "-"],
            input: """
              table inet class {
                chain output {
                  type route hook output priority mangle
                  oifname "\(TunnelPlan.device)" ip dscp set ef
                  oifname "\(TunnelPlan.device)" ip6 dscp set ef
                }
              }
              """, in: a)
        }
        let wire = try await blocking { try Capture(a, "wire") }
        var retransmits = 0
        for address in [Side.b.inner4, Side.b.inner6] {
          let transfer = BulkTransfer(from: a, to: b, address: address, amount: .bytes(1_500_001))
          retransmits += try await blocking { try transfer.run() }.retransmits
        }
        let directory = try TemporaryDirectory()
        let file = "\(directory.path)/wire.pcap"
        try PacketFile.write(try await wire.finish().filter(\.isOutgoing).map(\.bytes), link: .ethernet, to: file)
        let marks = try await blocking { try Self.marks(in: file, isV6: overIPv6) }
        // 46 is EF, 2 is ECT(0); what TCP sends again is not ECN-capable (RFC 3168 §6.1.5).
        let dscp = copiesDSCP ? 46 : 0
        #expect(marks.count > 2000)
        #expect(marks.count { $0 != "\(dscp)\t2" } <= retransmits, "\(Set(marks)), \(retransmits) sent again")
        #expect(marks.allSatisfy { $0.hasPrefix("\(dscp)\t") })
        let statistics = await tunnel.a.settled()
        #expect(statistics.transport("sent-trains") * 4 < statistics.transport("sent-datagrams"))
      }
    }

    /// DSCP and ECN of the large sealed packets, as tshark sees them.
    private static func marks(in file: String, isV6: Bool) throws -> [String] {
      let fields = isV6 ? ["ipv6.tclass.dscp", "ipv6.tclass.ecn"] : ["ip.dsfield.dscp", "ip.dsfield.ecn"]
      let words = ["-r", file, "-Y", "esp and udp.length > 1300", "-T", "fields"] + fields.flatMap { ["-e", $0] }
      let lines = try Tool.run("tshark", words).split(separator: "\n")
      // Warnings may come first.
      return lines.map(String.init).filter { $0.contains("\t") }
    }
  }
}
