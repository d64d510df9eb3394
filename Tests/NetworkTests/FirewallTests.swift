import CLinux
import Dataplane
import Glibc
import PacketIO
import Synchronization
import Testing

@testable import Lab

extension NetworkTests {
  /// Firewalls at both ends, and real hosts at both ends of them:
  /// ```
  /// a: 10.77.0.1, 10.1.0.0/16 ── culvert0 ═══ 192.0.2.0/24 ═══ culvert0 ── b: 10.77.0.2
  /// ```
  @Suite struct FirewallTests {
    private static let allowTCP = FirewallRule(
      number: 10, name: "tcp", protocol: .tcp, direction: .inbound, action: .allow)

    private static func plan(_ rules: [FirewallRule] = [], flows: Int = 65_536, pending: Int = 16_384) -> TunnelPlan {
      var plan = TunnelPlan()
      plan.networks = [.a: ["10.1.0.0/16"]]
      for side in Side.allCases {
        plan.firewalls[side] = FirewallConfiguration(
          mode: .on, rules: rules, flowCapacity: flows, pendingCapacity: pending)
      }
      return plan
    }

    /// Pings of every size pass, fragmented ones too; a connection that a partner begins does not.
    @Test(.timeLimit(.minutes(1))) func defaultPolicyBetweenRealHosts() async throws {
      try await Tunnel.with(Self.plan(), isLossless: false) { tunnel in
        let sizes = [0, 1, 56, 1372, 1373, 4000, 65_507]
        for (from, address) in [(tunnel.a, Side.b.inner4), (tunnel.b, Side.a.inner4)] {
          try await Pings(from: from.namespace, to: address).expectAnswers(sizes)
        }
        for (from, address) in [(tunnel.a, Side.b.inner6), (tunnel.b, Side.a.inner6)] {
          try await Pings(from: from.namespace, to: address).expectAnswers([0, 56, 1352, 1353, 9000])
        }
        #expect(await tunnel.b.dropped(.firewallDefault) == 0)
        let connects = try await tunnel.a.namespace.inside { () -> Bool in
          let socket = try Socket(.stream, isV6: false)
          try socket.setTimeout(0.5)
          return (try? socket.connect(Lab.Endpoint(Side.b.inner4, port: 7))) != nil
        }
        #expect(!connects)
        #expect(await tunnel.b.dropped(.firewallDefault) > 0)
        #expect(await tunnel.a.dropped(.firewallDefault) == 0)
      }
    }

    /// Kernels that send superpackets, gather what they receive, retransmit and scale their windows: no packet of
    /// theirs contradicts its connection.
    @Test(.timeLimit(.minutes(2)), arguments: [.all, [], [.checksum]] as [TunOffloads])
    func transfersFitTheirWindows(offloads: TunOffloads) async throws {
      var plan = Self.plan([Self.allowTCP])
      plan.offloads = offloads
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        for (from, to) in [(tunnel.a, tunnel.b), (tunnel.b, tunnel.a)] {
          for (address, streams) in [(to.side.inner4, 1), (to.side.inner6, 4)] {
            try await Tunnel.transfer(
              from: from.namespace, to: to.namespace, address, bytes: offloads == .all ? 20_000_003 : 5_000_003,
              streams: streams)
          }
        }
        for gateway in [tunnel.a, tunnel.b] {
          let statistics = await gateway.settled()
          #expect(statistics.dropped(.invalidConnectionState) == 0)
          #expect(statistics.dropped(.firewallDefault) == 0)
          #expect((statistics.firewall?.rules.first?.traffic.packets ?? 0) > 1000)
          // Each transfer is over, and so are its flows.
          #expect(statistics.firewall?.establishedFlows == 0, "\(String(describing: statistics.firewall))")
        }
      }
    }

    /// SYNs and UDP from ten thousands of addresses, without end, against tables that are full: the pending ones of the
    /// flood, the established one of a transfer that was there before. The transfer keeps its places and loses nothing,
    /// and the other side can begin one of its own. What is refused is the flood's: answers to what was pushed out.
    @Test(.timeLimit(.minutes(5)), arguments: ["syn", "udp"])
    func aTransferOutlivesAFlood(kind: String) async throws {
      let open = [Self.allowTCP, FirewallRule(number: 20, protocol: .udp, direction: .inbound, action: .allow)]
      try await Tunnel.with(Self.plan(open, flows: 3, pending: 64), isLossless: false) { tunnel in
        var transfer = BulkTransfer(
          from: tunnel.a.namespace, to: tunnel.b.namespace, address: Side.b.inner4, amount: .bytes(12_000_001))
        transfer.streams = 2
        transfer.verifies = true
        transfer.timeLimit = 90
        transfer.patience = 90
        let established = LabThread(name: "transfer") { [transfer] in try transfer.run() }
        #expect(await eventually { await tunnel.b.dataplane.statistics().firewall?.establishedFlows == 2 })
        let over = Shared(Atomic(false))
        let flood = LabThread(in: tunnel.a.namespace, name: "flood") { () throws -> Int in
          try SpoofedFlood(isSyn: kind == "syn", to: Side.b.inner4).run(until: over)
        }
        defer { over.value.store(true, ordering: .releasing) }
        let isFull = await eventually {
          guard let firewall = await tunnel.b.dataplane.statistics().firewall else { return false }
          return firewall.pendingFlows >= 64 && firewall.establishedFlows == 2 && firewall.evicted > 1000
        }
        #expect(isFull)
        try await Tunnel.transfer(
          from: tunnel.b.namespace, to: tunnel.a.namespace, Side.a.inner4, bytes: 1_000_019)
        let result = try await established.value
        #expect(result.isIntact && result.bytes == 12_000_001)
        over.value.store(true, ordering: .releasing)
        #expect(try await flood.value > 3000)
        for gateway in [tunnel.a, tunnel.b] {
          let firewall = try #require(await gateway.settled().firewall)
          #expect(firewall.pendingFlows <= 128 && firewall.establishedFlows + firewall.closedFlows <= 3)
          #expect(firewall.overflowed == 0, "an established flow was without its place: \(firewall)")
        }
      }
    }

    /// A reload that forbids a flow ends it at once, and one that does not leaves it alone.
    @Test(.timeLimit(.minutes(1))) func reloadsJudgeFlowsAnew() async throws {
      let plan = Self.plan([Self.allowTCP])
      try await Tunnel.with(plan, isLossless: false) { tunnel in
        let namespaces = (tunnel.a.namespace, tunnel.b.namespace)
        let (client, server) = try await Self.connect(namespaces.0, namespaces.1, Side.b.inner4)
        #expect(try await Self.talk(client, server))
        var next = plan
        next.firewalls[.b]?.rules.append(FirewallRule(number: 5, protocol: .udp, action: .deny))
        try await tunnel.b.dataplane.apply(next.configuration(of: .b))
        #expect(try await Self.talk(client, server))
        next.firewalls[.b]?.rules = []
        try await tunnel.b.dataplane.apply(next.configuration(of: .b))
        #expect(try await !Self.talk(client, server))
        #expect(await tunnel.b.dropped(.firewallDefault) > 0)
        // Nobody knows that it is over yet; what still comes is refused.
        client.abort()
        server.abort()
      }
    }

    private static func connect(
      _ from: Namespace, _ to: Namespace, _ address: String
    ) async throws -> (Socket, Socket) {
      let listener = try await to.inside { () throws -> Socket in
        let socket = try Socket(.stream, isV6: false)
        try socket.bind(Lab.Endpoint(address, port: 0))
        try socket.listen()
        return socket
      }
      let port = listener.port
      let client = try await from.inside { () throws -> Socket in
        let socket = try Socket(.stream, isV6: false)
        try socket.setTimeout(1)
        try socket.connect(Lab.Endpoint(address, port: port))
        return socket
      }
      let server = try await blocking { try listener.accept() }
      try server.setTimeout(1)
      return (client, server)
    }

    /// Whether a few bytes go from one to the other.
    private static func talk(_ from: Socket, _ to: Socket) async throws -> Bool {
      try await blocking {
        let buffer = LabBuffer(count: 16)
        return from.send(buffer, 0, 16) == 16 && to.receive(buffer) == 16
      }
    }
  }
}

/// Packets from many addresses, of which the partner knows that they are ours: written whole, IP header and all.
private final class SpoofedFlood {
  private let descriptor: Int32
  private var target = sockaddr_in()
  private var packet: [UInt8]
  private let isSyn: Bool
  private var random = SplitMix64(seed: 9)

  init(isSyn: Bool, to address: String) throws {
    self.isSyn = isSyn
    descriptor = socket(AF_INET, Int32(SOCK_RAW.rawValue), Int32(IPPROTO_RAW))
    guard descriptor >= 0 else { throw LabError("no raw socket") }
    target.sin_family = sa_family_t(AF_INET)
    inet_pton(AF_INET, address, &target.sin_addr)
    packet = [UInt8](repeating: 0, count: 40)
    packet[0] = 0x45
    packet[8] = 64
    packet[9] = isSyn ? 6 : 17
    withUnsafeBytes(of: target.sin_addr) { packet.replaceSubrange(16..<20, with: $0) }
  }

  deinit { close(descriptor) }

  /// - Returns: packets sent.
  func run(until over: Shared<Atomic<Bool>>) throws -> Int {
    var sent = 0
    while !over.value.load(ordering: .acquiring) {
      for _ in 0..<64 {
        prepare()
        let status = packet.withUnsafeBytes { bytes in
          withUnsafePointer(to: &target) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
              sendto(descriptor, bytes.baseAddress, bytes.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
          }
        }
        if status > 0 { sent += 1 }
      }
      // Some 20,000 a second: more than that, and the device's queue is what loses packets, its own and others'.
      usleep(3000)
    }
    return sent
  }

  private func prepare() {
    let number = random.next()
    packet.replaceSubrange(12..<16, with: [10, 1, UInt8(number & 255), UInt8(number >> 8 & 255)])
    packet.replaceSubrange(20..<22, with: [UInt8(number >> 16 & 255), UInt8(number >> 24 & 255)])
    // A port on which nobody listens, and one of another range for each.
    packet.replaceSubrange(22..<24, with: [0x27, UInt8(number >> 32 & 255)])
    if isSyn {
      packet[32] = 0x50
      packet[33] = 2
      packet[34] = 0x10
    } else {
      packet.replaceSubrange(24..<28, with: [0, 20, 0, 0])
    }
    packet.replaceSubrange(36..<38, with: [0, 0])
    guard isSyn else { return }
    var sum = 6 + 20
    for range in [12..<20, 20..<40] {
      for place in stride(from: range.lowerBound, to: range.upperBound, by: 2) {
        sum += Int(packet[place]) << 8 | Int(packet[place + 1])
      }
    }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    packet.replaceSubrange(36..<38, with: [UInt8(~sum >> 8 & 255), UInt8(~sum & 255)])
  }
}
