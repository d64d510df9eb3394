import Dataplane
import Foundation
import Glibc
import PacketIO
import Testing

@testable import Lab

extension NetworkTests {
  /// What running programs may still do.
  @Suite(.enabled(if: HairpinSite.isPossible, "needs root, nft, culvert and culvert-relay"))
  struct PrivilegeTests {
    /// A field of each thread's status, but of those that the kernel runs for a ring.
    private static func field(_ name: String, of pid: pid_t) -> [String] {
      System.names(in: "/proc/\(pid)/task").compactMap { thread in
        let place = "/proc/\(pid)/task/\(thread)"
        if (ProcFile.read("\(place)/comm") ?? "").hasPrefix("iou-") { return nil }
        return ProcFile.field("\(name):", of: "\(place)/status")
      }
    }

    private static func check(_ pid: pid_t, capabilities: UInt64) {
      for name in ["CapEff", "CapPrm", "CapBnd"] {
        let values = field(name, of: pid).map { UInt64($0, radix: 16) }
        #expect(!values.isEmpty && values.allSatisfy { $0 == capabilities }, "\(name): \(values)")
      }
      let inherited = field("CapInh", of: pid).compactMap { UInt64($0, radix: 16) }
      #expect(inherited.allSatisfy { $0 & ~capabilities == 0 })
      #expect(Set(field("NoNewPrivs", of: pid)) == ["1"])
      #expect(Set(field("Seccomp", of: pid)) == ["2"])
      let limits = ProcFile.read("/proc/\(pid)/limits") ?? ""
      let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") } ?? ""
      #expect(core.split(separator: " ").filter { $0 == "0" }.count == 2, "\(core)")
    }

    /// The device and its routes are a gateway's to change as long as it runs; nothing else is.
    @Test(.timeLimit(.minutes(1))) func aGatewayKeepsTheNetworkOnly() async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let site = try GatewaySite(.a, in: network["a"], secret: try await GatewaySite.makeSecret())
      let gateway = try await site.start()
      defer { gateway.terminate() }
      let isSettled = await eventually { Set(Self.field("Seccomp", of: gateway.pid)) == ["2"] }
      #expect(isSettled)
      Self.check(gateway.pid, capabilities: 1 << 12)
      // It still changes what it has, and ends tidily.
      try site.write(settings: "lan: [10.9.0.0/24]", peerSettings: "    keep-alive: 5")
      let reloaded = try await Program.run(["reload", "--control", site.control])
      #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
      let status = try await blocking {
        gateway.signal(SIGTERM)
        return try gateway.wait(timeout: 10)
      }
      #expect(status == .exited(0), "\(gateway.output)")
    }

    /// Keys, what they are expanded to, and the secret that they come from are in memory that is neither swapped nor
    /// dumped, whichever library computes with them; nothing is left where they were read and derived.
    @Test(.timeLimit(.minutes(1)), arguments: ["openssl", "auto"]) func keysLieInGuardedMemoryOnly(
      engine: String
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let text = try await GatewaySite.makeSecret()
      let site = try GatewaySite(.a, in: network["a"], secret: text, settings: "engine: \(engine)")
      let gateway = try await site.start()
      defer { gateway.terminate() }
      let digits = try #require(text.split(separator: "\n").first { !$0.hasPrefix("#") })
      let secret = stride(from: 0, to: digits.utf8.count, by: 2).compactMap {
        UInt8(digits.dropFirst($0).prefix(2), radix: 16)
      }
      let keys = try StaticAssociations(
        secret: KeyMaterial(secret), local: "a", remote: "b", cipher: .aes128GCM)
      let memory = try #require(ProcessMemory(of: gateway.pid))
      defer { memory.close() }
      for key in [keys.outbound.key, keys.inbound.key] {
        let bytes = unsafe key.withBytes { unsafe Array($0.prefix(16)) }
        #expect(memory.hasProtected(bytes))
        #expect(memory.unprotectedPlaces(of: bytes) == [])
      }
      #expect(memory.unprotectedPlaces(of: secret) == [])
      #expect(memory.unprotectedPlaces(of: Array(digits.utf8)) == [])
    }

    @Test(.timeLimit(.minutes(1))) func aRelayKeepsNothing() async throws {
      let site = try await HairpinSite()
      defer { site.network.remove() }
      let relay = try await site.startRelay()
      defer { relay.terminate() }
      Self.check(relay.pid, capabilities: 0)
    }
  }
}
