import Foundation
import Glibc
import Testing

@testable import Lab

extension NetworkTests {
  /// What may be wrong with a machine or a file: one line that names cause and remedy, a status that is not 0, and
  /// nothing left behind.
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct BadInputTests {
    /// A machine with a gateway's file on it.
    private struct Machine {
      let network: Network
      let site: GatewaySite
      var namespace: Namespace { site.namespace }
    }

    /// - Parameter isManual: keys are given, and not agreed upon.
    private func withMachine(isManual: Bool = false, _ body: (Machine) async throws -> Void) async throws {
      let network = try await blocking { try Network(.direct) }
      defer { network.remove() }
      let secret = try await GatewaySite.makeSecret()
      let site = try GatewaySite(.a, in: network["a"], keys: isManual ? .manual(secret) : .secret(secret))
      try await body(Machine(network: network, site: site))
    }

    /// - Parameters:
    ///   - words: what the line must contain: of the cause, and of the remedy.
    ///   - wrapper: what starts the program, see `Program.run`.
    private func expectComplaint(
      _ words: [String], _ machine: Machine, wrapper: [String] = [], sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
      // No record either, where nothing was sealed.
      let before = try await machine.site.traces(withState: true)
      let outcome = try await Program.run(
        ["gateway", "--config", machine.site.file], in: machine.namespace, wrapper: wrapper)
      #expect(outcome.status == .exited(1), "\(outcome.lines)", sourceLocation: sourceLocation)
      #expect(outcome.lines.count == 1, "\(outcome.lines)", sourceLocation: sourceLocation)
      let line = outcome.lines.first ?? ""
      for word in words { #expect(line.contains(word), sourceLocation: sourceLocation) }
      // Cause; remedy.
      #expect(line.contains("; "), "\(line)", sourceLocation: sourceLocation)
      try await machine.site.expectTraces(before, withState: true, sourceLocation: sourceLocation)
    }

    /// With the right machine the same file works: what the complaints below are about is what they break.
    @Test(.timeLimit(.minutes(1)))
    func theFileIsGood() async throws {
      try await withMachine { machine in
        let process = try await machine.site.start()
        #expect(process.terminate() == .exited(0))
      }
    }

    // MARK: The machine

    @Test(.timeLimit(.minutes(1)))
    func noTunDevice() async throws {
      try await withMachine { machine in
        try await expectComplaint(
          ["/dev/net/tun is missing", "modprobe tun"], machine,
          wrapper: ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"])
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func noPrivilege() async throws {
      try await withMachine { machine in
        try await expectComplaint(
          ["CAP_NET_ADMIN", "run as root"], machine,
          wrapper: ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"])
      }
    }

    /// Another user than root, whose files these are.
    @Test(.timeLimit(.minutes(1)))
    func anotherUser() async throws {
      try await withMachine { machine in
        let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        let directory = machine.site.directory.path
        let outcome = try await Program.run(["--help"], wrapper: wrapper)
        guard outcome.status == .exited(0) else {
          print("SKIPPED: a gateway run by another user: nobody may not run \(Program.path)")
          return
        }
        for name in [directory, machine.site.file, "\(directory)/shared.secret"] {
          #expect(chown(name, 65534, 65534) == 0)
        }
        try await expectComplaint(["CAP_NET_ADMIN", "run as root"], machine, wrapper: wrapper)
      }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists(Judges.python), "needs python3"))
    func noRing() async throws {
      try await withMachine { machine in
        try await expectComplaint(
          ["io_uring", "kernel.io_uring_disabled"], machine,
          wrapper: [Judges.python, Judges.script("without_io_uring.py")])
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: ["0.0.0.0", "::"])
    func portInUse(address: String) async throws {
      try await withMachine { machine in
        let holder = try await machine.namespace.inside {
          let socket = try Socket(.datagram, isV6: address.contains(":"))
          if socket.isV6 { try socket.set(Int(IPPROTO_IPV6), Int32(IPV6_V6ONLY), 1, "IPV6_V6ONLY") }
          try socket.bind(Lab.Endpoint(address, port: 4500))
          return socket
        }
        try await expectComplaint(["4500", "in use", "stop the program"], machine)
        withExtendedLifetime(holder) {}
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func addressNotHere() async throws {
      try await withMachine { machine in
        try machine.site.write(settings: "listen: 198.51.100.7:4500")
        try await expectComplaint(["198.51.100.7", "this machine has no such address"], machine)
      }
    }

    @Test(.timeLimit(.minutes(1)), arguments: [Side.a.inner4 + "/24", Side.a.inner6 + "/64 nodad"])
    func addressTaken(address: String) async throws {
      try await withMachine { machine in
        try machine.namespace.ip(["addr add \(address) dev wire"])
        try await expectComplaint(["\(address.prefix { $0 != "/" })", "wire"], machine)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func routeTaken() async throws {
      try await withMachine { machine in
        try machine.namespace.ip(["route add \(Side.b.inner4)/32 dev wire"])
        try await expectComplaint(["route \(Side.b.inner4)/32", "wire", "remove it"], machine)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func deviceNameTaken() async throws {
      try await withMachine { machine in
        try machine.namespace.ip(["link add \(TunnelPlan.device) type veth peer name other"])
        try await expectComplaint([TunnelPlan.device, "not a TUN device", "choose another name"], machine)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func startedTwice() async throws {
      try await withMachine(isManual: true) { machine in
        let first = try await machine.site.start()
        try await expectComplaint(["in use by another gateway", "stop that gateway"], machine)
        // Another gateway, but the same keys; then other keys, but the same device.
        let text = try String(contentsOfFile: machine.site.file, encoding: .utf8)
        let complaints = [
          (true, ["send.key is in use by another gateway on this machine", "make a new key"]),
          (false, [TunnelPlan.device, "another process uses the device"]),
        ]
        for (isSame, words) in complaints {
          let second = try GatewaySite(
            .a, in: machine.namespace, keys: .manual(try await GatewaySite.makeSecret()))
          try second.directory.write("a.yaml", text + "\nlisten: 4501\n")
          for name in ["send.key", "receive.key"] where isSame {
            let key = try String(contentsOfFile: "\(machine.site.directory.path)/\(name)", encoding: .utf8)
            try second.directory.write(name, key)
          }
          try await expectComplaint(words, Machine(network: machine.network, site: second))
        }
        #expect(first.status == nil)
        #expect(first.terminate() == .exited(0))
      }
    }

    // MARK: The file

    @Test(.timeLimit(.minutes(1)), arguments: [0o644, 0o640, 0o604])
    func keyFileThatOthersRead(mode: Int) async throws {
      try await withMachine { machine in
        #expect(chmod("\(machine.site.directory.path)/shared.secret", mode_t(mode)) == 0)
        try await expectComplaint(["a.yaml:", "shared.secret", "chmod 600"], machine)
        try await expectSame(machine)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func prefixClaimedTwice() async throws {
      try await withMachine { machine in
        let made = try await Program.run(["keygen", "--secret", "\(machine.site.directory.path)/other.secret"])
        #expect(made.status == .exited(0))
        try machine.site.write(
          more: """
              - {name: c, prefixes: ["\(Side.b.inner6)/128"], secret: other.secret}
            """)
        try await expectComplaint(
          ["a.yaml:", "peer c", "\(Side.b.inner6)/128 belongs to peer b already", "remove it"], machine)
        try await expectSame(machine)
      }
    }

    @Test(
      .timeLimit(.minutes(1)),
      arguments: [
        ("lisen: 4500", ["'lisen'", "listen"]), ("frobnicate: 3", ["'frobnicate'"]), ("listen: 70000", ["70000"]),
        ("engine: quantum", ["quantum", "openssl"]),
      ])
    func misspeltSettings(line: String, words: [String]) async throws {
      try await withMachine { machine in
        try machine.site.write(settings: line)
        try await expectComplaint(["a.yaml:5: "] + words, machine)
        try await expectSame(machine)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func misspeltSettingsOfPeers() async throws {
      try await withMachine { machine in
        try machine.site.write(peerSettings: "    cypher: aes-128-gcm")
        try await expectComplaint(["a.yaml:", "'cypher'", "cipher"], machine)
        try machine.site.write(peerSettings: "    cipher: rot13")
        try await expectComplaint(["a.yaml:", "rot13", "aes-128-gcm"], machine)
        try machine.site.write(peerSettings: "    replay-window: 100")
        try await expectComplaint(["a.yaml:", "replay-window", "128"], machine)
      }
    }

    @Test(.timeLimit(.minutes(1)))
    func noFile() async throws {
      try await withMachine { machine in
        #expect(unlink(machine.site.file) == 0)
        try await expectComplaint(["a.yaml", "cannot be read", "give the path"], machine)
      }
    }

    /// `culvert check` says the same without touching anything.
    private func expectSame(_ machine: Machine, sourceLocation: SourceLocation = #_sourceLocation) async throws {
      let started = try await Program.run(["gateway", "--config", machine.site.file], in: machine.namespace)
      let checked = try await Program.run(["check", machine.site.file])
      #expect(checked.status == .exited(1), sourceLocation: sourceLocation)
      #expect(checked.lines == started.lines, sourceLocation: sourceLocation)
    }
  }
}
