import Dataplane
import Foundation
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// ESP judged by others: scapy, tshark, and for what both lack python-cryptography with the RFC by hand.
  @Suite struct InteropTests {
    /// One way to seal. `number` tells their associations apart.
    struct Way: CustomStringConvertible {
      var number: Int
      var cipher: Cipher
      var implicitIV: Bool
      /// The first sequence number; nil: 32 bits only.
      var extendedFrom: UInt64?

      var description: String {
        let numbers = extendedFrom.map { $0 > 1 << 32 ? "ESN beyond 2³²" : "ESN" } ?? "32-bit numbers"
        return "\(cipher.rawValue), \(numbers)\(implicitIV ? ", implicit IV" : "")"
      }

      func apply(to plan: TunnelPlan) -> TunnelPlan {
        var plan = plan
        plan.cipher = cipher
        plan.implicitIV = implicitIV
        plan.extended = extendedFrom != nil
        plan.keyAge = UInt64(number)
        for side in Side.allCases { plan.firstSequences[side] = extendedFrom ?? 1 }
        return plan
      }
    }

    static let ways: [Way] = {
      var ways: [Way] = []
      for cipher in Cipher.allCases {
        for implicitIV in [false, true] {
          for first in [nil, 1, 1 << 32 + 7] as [UInt64?] {
            ways.append(Way(number: ways.count, cipher: cipher, implicitIV: implicitIV, extendedFrom: first))
          }
        }
      }
      return ways
    }()

    /// Traffic under every way, one after the other, captured at a's end of the wire.
    private struct Recording {
      /// UDP datagrams in frames, as they were on the wire.
      var frames: [[UInt8]] = []
      /// What each side's device gave to its gateway, where it was not cut or completed later.
      var plain: [Side: [[UInt8]]] = [:]
      /// Digests of the streams that a sent.
      var streams: [UInt64] = []
    }

    private func record(engine: CipherEngine, offloads: TunOffloads) async throws -> Recording {
      var base = TunnelPlan()
      base.engine = engine
      base.offloads = offloads
      var recording = Recording()
      // A gateway's own probe may meet the other one before that has the new keys.
      try await Tunnel.with(InteropTests.ways[0].apply(to: base), isLossless: false) { tunnel in
        let (a, b) = (tunnel.a.namespace, tunnel.b.namespace)
        // Trains shall be cut before they are captured, as a network card would.
        for end in [a, b] { try await blocking { try end.ip(["link set wire gso_max_segs 1"]) } }
        let wire = try await blocking { try Capture(a, "wire") }
        var devices: [Side: Capture] = [:]
        for side in Side.allCases {
          let namespace = tunnel[side].namespace
          devices[side] = try await blocking { try Capture(namespace, TunnelPlan.device) }
        }
        for way in InteropTests.ways {
          let plan = way.apply(to: base)
          for side in Side.allCases { try await tunnel[side].dataplane.apply(plan.configuration(of: side)) }
          try await Pings(from: a, to: Side.b.inner4).expectAnswers([0, 1, 2, 3, 200, 1372])
          try await Pings(from: b, to: Side.a.inner6).expectAnswers([0, 1, 2, 3, 200, 1352])
          // Before that, TCP is cut smaller than it came.
          for side in Side.allCases {
            let isConfirmed = await eventually {
              await tunnel[side].dataplane.statistics().peers.first?.pathMTUSource == .probes
            }
            #expect(isConfirmed)
          }
          var transfer = BulkTransfer(from: a, to: b, address: Side.b.inner4, amount: .bytes(60_001))
          transfer.verifies = true
          let result = try await blocking { [transfer] in try transfer.run() }
          #expect(result.isIntact)
          recording.streams += result.digests.map(\.sent)
          // The stream's last words are sealed before the keys change.
          try? await Task.sleep(for: .milliseconds(30))
        }
        recording.frames = try await wire.finish().map(\.bytes)
        for (side, device) in devices {
          recording.plain[side] = try await device.finish().filter(\.isOutgoing).map(\.bytes)
        }
        // Nothing but sealed packets, beside what neighbours say to each other.
        let kinds = Set(recording.frames.map { WireTap.classify($0, 4500) })
        #expect(kinds.isSubset(of: [.esp, .neighbours]))
      }
      return recording
    }

    /// - Parameter plain: whether the device hands over packets as they will be sealed, not superpackets.
    @Test(
      .timeLimit(.minutes(2)), .enabled(if: Judges.hasScapy && Judges.hasTshark, "needs scapy and tshark"),
      arguments: [false, true])
    func othersOpenWhatWeSeal(plain: Bool) async throws {
      let engine = plain ? CipherEngine.openSSL : CipherEngine.available[0]
      let recording = try await record(engine: engine, offloads: plain ? [] : .all)
      let directory = try TemporaryDirectory()
      let capture = "\(directory.path)/wire.pcap"
      try PacketFile.write(recording.frames, link: .ethernet, to: capture)

      let output = [Side.a: "\(directory.path)/a.pcap", .b: "\(directory.path)/b.pcap"]
      let plans = InteropTests.ways.map { $0.apply(to: TunnelPlan()) }
      let report = try await Judges.run(
        "open_capture.py",
        Judges.CaptureDescription(
          capture: capture, output: [Side.a.outer4: output[.a] ?? "", Side.b.outer4: output[.b] ?? ""],
          associations: plans.flatMap { plan in Side.allCases.map { Judges.Association(plan, from: $0) } }),
        answer: Judges.OpenedCapture.self)
      #expect(report.unknown == 0)

      let packets = try await blocking {
        try Tshark.open(
          capture,
          plans.flatMap { plan in
            Side.allCases.map { (plan.association(from: $0), plan.keyBytes($0)) }
          })
      }
      for (way, plan) in zip(InteropTests.ways, plans) {
        var verdicts: [String] = []
        for side in Side.allCases {
          let found = try #require(report.associations["\(plan.spi(side))"])
          #expect(found.failures == [], "\(way) from \(side)")
          // Twelve echoes, and a stream in one direction.
          #expect(found.opened - found.dummies >= (side == .a ? 50 : 13), "\(way) from \(side)")
          let seen = packets.filter { $0.spi == plan.spi(side) }
          #expect(seen.count == found.opened)
          verdicts.append("\(found.judge) opened \(found.opened)")
          verdicts.append(judge(seen, way, side))
        }
        print(
          "ESP judged (\(engine.rawValue), \(way)): a→b: \(verdicts[0]), \(verdicts[1]); b→a: \(verdicts[2]), \(verdicts[3])"
        )
      }

      // What was inside is what went in.
      var inner: [Side: [[UInt8]]] = [:]
      for side in Side.allCases {
        let packets = try PacketFile.read(output[side] ?? "")
        #expect(packets.compactMap(InnerStream.problem) == [])
        inner[side] = packets
        if plain { #expect(packets == recording.plain[side], "from \(side)") }
      }
      #expect(InnerStream.digests(inner[.a] ?? []) == recording.streams)
      compare(packets, inner, plans)
    }

    /// What tshark says of one association's packets.
    private func judge(_ packets: [Tshark.Packet], _ way: Way, _ side: Side) -> String {
      guard Tshark.name(way.cipher) != nil, !way.implicitIV else { return "tshark knows no such cipher" }
      #expect(packets.allSatisfy { $0.decrypted != nil }, "\(way) from \(side): tshark decrypts")
      if way.extendedFrom != nil {
        return "tshark decrypted \(packets.count) (it knows no ESN, so it cannot judge the ICV)"
      }
      #expect(packets.allSatisfy { $0.isICVGood == true }, "\(way) from \(side): tshark finds the ICV good")
      return "tshark opened \(packets.count)"
    }

    /// tshark and scapy find the same inner packets.
    private func compare(_ packets: [Tshark.Packet], _ inner: [Side: [[UInt8]]], _ plans: [TunnelPlan]) {
      for side in Side.allCases {
        let all = Set(inner[side] ?? [])
        for packet in packets where packet.source == side.outer4 {
          guard let decrypted = packet.decrypted, decrypted.count >= 2, decrypted[decrypted.count - 1] != 59,
            plans.contains(where: { $0.spi(side) == packet.spi && !$0.implicitIV })
          else { continue }
          let padding = Int(decrypted[decrypted.count - 2])
          #expect(all.contains(Array(decrypted[..<max(decrypted.count - 2 - padding, 0)])))
        }
      }
    }

    private struct Partners: Encodable {
      struct Entry: Encodable {
        var name: String
        var sending: Judges.Association
        var receiving: Judges.Association
        var source: String
        var destination: String
      }
      var sizes: [Int]
      var entries: [Entry]
    }

    private struct Answered: Decodable {
      var name: String
      var judge: String
      var answered: Int
      var failures: [String]
    }

    /// A gateway with a partner for each way, none of whose addresses it knows; scapy plays all of them from
    /// 192.0.2.2, and every echo request that it seals is answered.
    @Test(
      .timeLimit(.minutes(1)), .enabled(if: Judges.hasScapy, "needs scapy"), arguments: CipherEngine.available)
    func weOpenWhatOthersSeal(engine: CipherEngine) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      var base = TunnelPlan()
      base.engine = engine
      var configuration = base.configuration(of: .a)
      configuration.peers = []
      configuration.interface.routes = []
      var entries: [Partners.Entry] = []
      for way in InteropTests.ways {
        let plan = way.apply(to: base)
        var peer = plan.peer(.b)
        let (source4, source6) = ("10.88.\(way.number).1", "fd88:0:0:\(way.number + 1)::1")
        peer.name = "\(way)"
        peer.path = nil
        peer.prefixes = ["\(source4)/24", "\(source6)/64"].compactMap { Prefix($0) }
        configuration.interface.routes += peer.prefixes
        configuration.peers.append(peer)
        for (source, destination) in [(source4, Side.a.inner4), (source6, Side.a.inner6)] {
          entries.append(
            Partners.Entry(
              name: "\(way)", sending: Judges.Association(plan, from: .b),
              receiving: Judges.Association(plan, from: .a),
              source: source, destination: destination))
        }
      }
      let gateway = try await TestGateway(.a, in: network["a"], base, configuration)
      let sizes = [0, 1, 2, 3, 64, 1300]
      let answers = try await Judges.run(
        "exchange.py", Partners(sizes: sizes, entries: entries), in: network["b"], answer: [Answered].self)
      #expect(answers.count == entries.count)
      for answer in answers {
        #expect(answer.failures == [] && answer.answered == sizes.count, "\(answer.name): \(answer.failures)")
      }
      for way in InteropTests.ways {
        let judged = answers.filter { $0.name == "\(way)" }
        let (count, judge) = (judged.reduce(0) { $0 + $1.answered }, judged.first?.judge ?? "nobody")
        print("ESP judged (\(engine.rawValue), \(way)): \(count) sealed by \(judge), and the answers opened")
      }
      let statistics = await gateway.settled()
      await checkBalance(.a) { await gateway.dataplane.statistics() }
      #expect(statistics.delivered.packets == UInt64(entries.count * sizes.count))
      #expect(statistics.allDropped == 0)
      for peer in statistics.peers {
        #expect(
          peer.received.packets == 2 * UInt64(sizes.count) && peer.path == Endpoint("192.0.2.2", defaultPort: 4500),
          "\(peer.name)")
      }
      await gateway.dataplane.stop()
    }
  }
}
