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

    /// Whom the kernel lets look into a program: its group where it is dumpable, root alone where it is not. Programs of root
    /// differ in nothing else.
    private static func group(of process: ProcessHandle) -> gid_t? {
      var status = stat()
      return stat("/proc/\(process.pid)/status", &status) == 0 ? status.st_gid : nil
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("setpriv"), "needs setpriv"))
    func nobodyReadsTheirMemory() async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let site = try GatewaySite(.a, in: network["a"], secret: try await GatewaySite.makeSecret())
      let hairpins = try await HairpinSite()
      defer { hairpins.network.remove() }
      let group: gid_t = 65_534
      func start(_ words: [String], in namespace: Namespace, _ line: String) async throws -> ProcessHandle {
        try await blocking {
          let process = try ProcessHandle("setpriv", ["--regid=\(group)", "--clear-groups"] + words, in: namespace)
          if !line.isEmpty { try process.waitUntil("it ran", timeout: 20) { $0.output.contains(line) } }
          return process
        }
      }
      let other = try await start(["sleep", "60"], in: network["a"], "")
      defer { other.terminate() }
      let isReadable = await eventually { Self.group(of: other) == group }
      #expect(isReadable, "nothing would be seen")
      let gateway = try await start([Program.path, "gateway", "--config", site.file], in: network["a"], "gateway runs")
      defer { gateway.terminate() }
      let relay = try await start(
        [Program.relay, "--config", "\(hairpins.directory.path)/relay.yaml"], in: hairpins.network["relay"],
        "relay runs")
      defer { relay.terminate() }
      for process in [gateway, relay] { #expect(Self.group(of: process) == 0) }
    }

    /// Whoever asks for the file to be read again before it was read does not end the program.
    @Test(.timeLimit(.minutes(1)), arguments: [true, false]) func aHangUpDuringTheStartEndsNothing(
      isGateway: Bool
    ) async throws {
      let hairpins = try await HairpinSite()
      defer { hairpins.network.remove() }
      let site = try GatewaySite(.a, in: hairpins.network["a"], secret: try await GatewaySite.makeSecret())
      let process = try await blocking {
        isGateway
          ? try ProcessHandle(Program.path, ["gateway", "--config", site.file], in: site.namespace)
          : try ProcessHandle(
            Program.relay, ["--config", "\(hairpins.directory.path)/relay.yaml"], in: hairpins.network["relay"])
      }
      defer { process.terminate() }
      // The kernel's part of a start is over with the program's first step.
      let ignores = await eventually(within: 20) {
        ["SigIgn", "SigCgt", "SigBlk"].contains {
          Self.field($0, of: process.pid).first.flatMap { UInt64($0, radix: 16) }.map { $0 & 1 == 1 } ?? false
        }
      }
      #expect(ignores)
      process.signal(SIGHUP)
      try await blocking { try process.waitUntil("it ran", timeout: 20) { $0.output.contains(" runs") } }
      process.signal(SIGTERM)
      let status = try await blocking { try process.wait(timeout: 10) }
      #expect(status == .exited(0), "\(process.output)")
    }

    /// A crash leaves no core, and in the log nothing of what was in registers and memory: a runtime's handler would print
    /// that. Here the next call into a library that a gateway uses all the time is no instruction.
    @Test(.timeLimit(.minutes(1))) func aCrashTellsNothing() async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let site = try GatewaySite(.a, in: network["a"], secret: try await GatewaySite.makeSecret())
      let gateway = try await site.start()
      defer { gateway.terminate() }
      let lines = gateway.output.split(separator: "\n").count
      let maps = (ProcFile.read("/proc/\(gateway.pid)/maps") ?? "").split(separator: "\n")
      let code = try #require(maps.first { $0.contains("/liburing") && $0.contains(" r-xp ") })
      let ends = code.prefix { $0 != " " }.split(separator: "-").compactMap { UInt64($0, radix: 16) }
      try #require(ends.count == 2)
      let memory = try #require(FileHandle(forUpdatingAtPath: "/proc/\(gateway.pid)/mem"))
      try memory.seek(toOffset: ends[0])
      #if arch(x86_64)
        let trap: UInt8 = 0xCC
      #else
        let trap: UInt8 = 0
      #endif
      try memory.write(contentsOf: Data(repeating: trap, count: Int(ends[1] - ends[0])))
      try memory.close()
      let status = try await blocking { try gateway.wait(timeout: 30) }
      guard case .killed = status else { return #expect(Bool(false), "\(status)") }
      let said = gateway.output.split(separator: "\n").dropFirst(lines)
      #expect(!said.contains { $0.contains("Registers") || $0.contains("acktrac") }, "\(said)")
      #expect(!FileManager.default.fileExists(atPath: "\(site.directory.path)/core"))
    }

    /// Manual keys, and what they are expanded to, are in memory that is neither swapped nor dumped, whichever library
    /// computes with them; nothing is left where they were read.
    @Test(.timeLimit(.minutes(1)), arguments: ["openssl", "auto"]) func keysLieInGuardedMemoryOnly(
      engine: String
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let text = try await GatewaySite.makeSecret()
      let site = try GatewaySite(.a, in: network["a"], keys: .manual(text), settings: "engine: \(engine)")
      let gateway = try await site.start()
      defer { gateway.terminate() }
      let keys = GatewaySite.associations(of: .a, secret: text)
      let memory = try #require(ProcessMemory(of: gateway.pid))
      defer { memory.close() }
      for key in [keys.outbound.key, keys.inbound.key] {
        let bytes = unsafe key.withBytes { unsafe Array($0) }
        #expect(memory.hasProtected(Array(bytes.prefix(16))))
        #expect(memory.unprotectedPlaces(of: Array(bytes.prefix(16))) == [])
        #expect(memory.unprotectedPlaces(of: Array(key.hexadecimal.utf8)) == [])
      }
    }

    /// The same of keys that were agreed upon, of the secret that two share, and of the private key of an identity,
    /// before and after a reload.
    @Test(.timeLimit(.minutes(1)), arguments: ["openssl", "auto"], [true, false]) func agreedKeysLieInGuardedMemoryOnly(
      engine: String, hasIdentity: Bool
    ) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let text = try await GatewaySite.makeSecret()
      let identities = try await GatewaySite.makeIdentities()
      let keys: GatewaySite.Keys = hasIdentity ? .identities(identities) : .secret(text)
      // So that the keys are listed.
      let sites = try Side.allCases.map {
        try GatewaySite(
          $0, in: network[$0.rawValue], keys: keys, settings: "engine: \(engine)",
          peerSettings: "    implicit-iv: false")
      }
      let gateways = try await GatewaySite.startPair(sites[0], sites[1])
      defer { for gateway in [gateways.0, gateways.1] { gateway.terminate() } }
      try await Pings(from: network["a"], to: Side.b.inner4).expectAnswers([56, 1000])
      // The other one is asked, which has the same: who tells keys has them in its memory as text.
      let traffic = try await sites[1].trafficKeys()
      try #require(traffic.count == 2 && Set(traffic).count == 2)

      let digits = try #require(text.split(separator: "\n").first { !$0.hasPrefix("#") })
      let secret = GatewaySite.bytes(digits)
      let pem = try #require(identities[.a]).pem
      let scalar = try privateScalar(pem)
      let body = pem.split(separator: "\n").dropFirst().prefix(2).joined(separator: "\n")
      for round in 0..<2 {
        let memory = try #require(ProcessMemory(of: gateways.0.pid))
        defer { memory.close() }
        for key in traffic {
          #expect(memory.hasProtected(Array(key.prefix(16))))
          #expect(memory.unprotectedPlaces(of: Array(key.prefix(16))) == [], "traffic key, round \(round)")
        }
        // Big numbers of the library are little-endian.
        for (name, pattern) in [
          ("secret", secret), ("secret as text", Array(digits.utf8)), ("scalar", scalar),
          ("scalar backwards", scalar.reversed()), ("PEM", Array(body.utf8)),
        ] { #expect(memory.unprotectedPlaces(of: pattern) == [], "\(name), round \(round)") }
        if round == 0 {
          let reloaded = try await Program.run(["reload", "--control", sites[0].control])
          #expect(reloaded.status == .exited(0), "\(reloaded.lines)")
        }
      }
    }

    /// The private number of a P-256 key in PKCS #8: behind the octet string tag of RFC 5915.
    private func privateScalar(_ pem: String) throws -> [UInt8] {
      let lines = pem.split(separator: "\n").filter { !$0.hasPrefix("-") }
      let bytes = [UInt8](try #require(Data(base64Encoded: lines.joined())))
      let mark: [UInt8] = [2, 1, 1, 4, 32]
      let place = try #require((0..<bytes.count - 36).first { Array(bytes[$0..<$0 + 5]) == mark })
      return Array(bytes[place + 5..<place + 37])
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
