import Dataplane
import Foundation
import Gateway
import Lab
import Testing

extension NetworkTests {
  /// The `culvert` command as an operator meets it: files, signals, exit statuses, and one line for each refusal. Keys
  /// are manual, because of their records.
  @Suite struct CommandTests {
    /// Two machines on one wire, with a file for each, and gateways that are processes.
    final class Sites: Sendable {
      static let names = ["alpha", "beta"]
      let network: Network
      let directory: TemporaryDirectory

      init() throws {
        directory = try TemporaryDirectory()
        network = try Network(.direct)
        for name in ["there", "back", "other", "another"] {
          try KeyFile.create(.key(.aes128GCM), at: "\(directory.path)/\(name).key")
        }
        for side in 0...1 { try write(side) }
      }

      deinit { network.remove() }

      func namespace(_ side: Int) -> Namespace { network[["a", "b"][side]] }
      func control(_ side: Int) -> String { "\(directory.path)/run/\(Sites.names[side]).sock" }
      func file(_ side: Int) -> String { "\(directory.path)/\(Sites.names[side]).yaml" }

      func text(_ side: Int) -> String {
        """
        name: \(Sites.names[side])
        interface:
          name: culvert0
          addresses: [10.\(side + 1).0.1/24]
          mtu: 1400
        control: run/\(Sites.names[side]).sock
        state: state/\(Sites.names[side])
        peers:
          - name: \(Sites.names[1 - side])
            address: 192.0.2.\(2 - side):4500
            prefixes: [10.\(2 - side).0.0/24]
            send: {spi: 0x100\(side + 1), key: \(["there", "back"][side]).key}
            receive: {spi: 0x100\(2 - side), key: \(["back", "there"][side]).key}

        """
      }

      /// - Parameter edits: texts and what stands for them.
      func write(_ side: Int, _ edits: [(String, String)] = [], as name: String? = nil) throws {
        var text = text(side)
        for (old, new) in edits {
          precondition(text.contains(old), "the file has no '\(old)'")
          text = text.replacing(old, with: new)
        }
        _ = try directory.write("\(name ?? Sites.names[side]).yaml", text)
      }

      /// Starts a gateway and waits until it answers.
      func start(_ side: Int) async throws -> ProcessHandle {
        try await start(file(side), ControlClient(path: control(side)))
      }

      func start(_ file: String, _ client: ControlClient) async throws -> ProcessHandle {
        try await blocking { [self] in
          let machine = namespace(file == self.file(1) ? 1 : 0)
          let process = try ProcessHandle(Sites.program, ["gateway", "--config", file], in: machine)
          try process.waitUntil("the gateway of \(file) runs", timeout: 20) { _ in (try? client.report()) != nil }
          return process
        }
      }

      func wait(_ process: ProcessHandle) async throws -> ProcessHandle.Status {
        try await blocking { try process.wait(timeout: 10) }
      }

      func report(_ side: Int) async throws -> GatewayReport {
        let client = ControlClient(path: control(side))
        return try await blocking { try client.report() }
      }

      /// The last number that was used for sealing.
      func sequence(_ side: Int) async throws -> UInt64 {
        let associations = try await report(side).statistics.peers.flatMap(\.associations)
        return try #require(associations.first { $0.direction == .outbound }).sequence
      }

      /// The highest number that was accepted.
      func heard(_ side: Int) async throws -> UInt64 {
        let associations = try await report(side).statistics.peers.flatMap(\.associations)
        return try #require(associations.first { $0.direction == .inbound }).sequence
      }

      /// What the record of a gateway that has stopped says of the numbers it used.
      func recorded(_ side: Int) async throws -> UInt64 {
        let state = "\(directory.path)/state/\(Sites.names[side])"
        let names = try FileManager.default.contentsOfDirectory(atPath: state).filter { $0.hasSuffix(".sent") }
        let text = try String(contentsOfFile: "\(state)/\(try #require(names.first))", encoding: .utf8)
        return try #require(UInt64(text.split(separator: "\n").last ?? ""))
      }

      /// Runs a command in the first machine to its end.
      func run(_ arguments: [String]) async throws -> (status: ProcessHandle.Status, lines: [String]) {
        try await run(Sites.program, arguments)
      }

      func run(_ program: String, _ arguments: [String]) async throws -> (
        status: ProcessHandle.Status, lines: [String]
      ) {
        try await blocking { [self] in
          let process = try ProcessHandle(program, arguments, in: namespace(0))
          let status = try process.wait(timeout: 20)
          return (status, process.output.split(separator: "\n").map(String.init))
        }
      }

      /// Every file, device and route.
      func inventory(_ side: Int) async throws -> [String] {
        try await blocking { [self] in
          let name = namespace(side).name
          let files = FileManager.default.enumerator(atPath: directory.path)?.compactMap { $0 as? String } ?? []
          let devices = try Tool.run("ip", ["-n", name, "-br", "link"]).split(separator: "\n")
          let routes = try Tool.run("ip", ["-n", name, "route"]).split(separator: "\n")
          return files.sorted() + devices.map { String($0.prefix { $0 != " " }) } + routes.map(String.init)
        }
      }

      /// Beside the program that runs the tests.
      static let program = PosixPath.directory(of: Tool.thisProgram) + "/culvert"
    }

    private enum PosixPath {
      static func directory(of path: String) -> String { String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) }
    }

    @Test(.timeLimit(.minutes(2)))
    func aLifeFromTheFirstStartToTheLast() async throws {
      let sites = try await blocking { try Sites() }
      let before = try await sites.inventory(0)
      let check = try await sites.run(["check", sites.file(0)])
      #expect(check.status == .exited(0))
      #expect(check.lines.first == "\(sites.file(0)): OK")

      let beta = try await sites.start(1)
      var alpha = try await sites.start(0)
      let pings = Pings(from: sites.namespace(0), to: "10.2.0.1")
      try await pings.expectAnswers([0, 56, 1372])

      // Reload: a file with errors changes nothing, another MTU is in force at once, and SIGHUP does the same.
      let reload = ["reload", "--control", sites.control(0)]
      try sites.write(0, [("mtu", "mut")])
      let refused = try await sites.run(reload)
      #expect(refused.status == .exited(1))
      let complaint = "\(sites.file(0)):5: interface: no setting is called 'mut'; did you mean 'mtu'?"
      #expect(refused.lines == ["culvert: the old configuration stays: \(complaint)"])
      try sites.write(0, [("name: culvert0", "name: culvert1")])
      let unchangeable = try await sites.run(reload)
      #expect(unchangeable.status == .exited(1))
      try sites.write(0, [("1400", "1390")])
      let accepted = try await sites.run(reload)
      #expect(accepted.status == .exited(0))
      let changed = try await sites.report(0)
      #expect(changed.mtu == 1390)
      try sites.write(0)
      alpha.signal(SIGHUP)
      let isBack = try await eventually { try await sites.report(0).mtu == 1400 }
      #expect(isBack)
      try await pings.expectAnswers()

      // Show, as text and as JSON.
      let text = try await sites.run(["show", "--control", sites.control(0)])
      #expect(text.lines.first?.hasPrefix("alpha on culvert0, up ") == true)
      #expect(text.lines.contains { $0.contains("to beta") && $0.contains("aes-128-gcm") })
      let json = try await sites.run(["show", "--json", "--control", sites.control(0)])
      let decoded = try JSONDecoder().decode(GatewayReport.self, from: Data(json.lines.joined().utf8))
      #expect(decoded.name == "alpha" && decoded.process == alpha.pid)

      // A crash skips numbers and repeats none; the peer follows without being told.
      let crashed = try await sites.sequence(0)
      alpha.signal(SIGKILL)
      _ = try await sites.wait(alpha)
      alpha = try await sites.start(0)
      let restarted = try await sites.sequence(0)
      #expect(restarted > crashed + 1_000_000)
      try await pings.expectAnswers()

      // A clean stop skips none, and leaves nothing but the records. Probes go on until it, so what was used last is
      // what the peer has heard last.
      let asked = try await sites.sequence(0)
      alpha.signal(SIGTERM)
      let ended = try await sites.wait(alpha)
      #expect(ended == .exited(0))
      #expect(alpha.output.contains("gateway has stopped"))
      let left = try await sites.inventory(0).filter { !$0.hasPrefix("state") && !$0.hasPrefix("run") }
      #expect(left == before)
      let last = try await sites.recorded(0)
      #expect(last >= asked)
      let isExact = try await eventually(within: 30) { try await sites.heard(1) == last }
      #expect(isExact)
      alpha = try await sites.start(0)
      // It probes already; a block that was skipped would be four million.
      let resumed = try await sites.sequence(0)
      #expect(resumed >= last && resumed < last + 10_000)
      try await pings.expectAnswers()
      for process in [alpha, beta] {
        process.signal(SIGINT)
        let status = try await sites.wait(process)
        #expect(status == .exited(0))
        #expect(!process.output.lowercased().contains("key"))
      }
    }

    /// What goes wrong at a start, and what is said of it.
    struct Refusal: Sendable, CustomTestStringConvertible {
      let testDescription: String
      var edits: [(String, String)] = []
      /// `ip` commands before.
      var before: [String] = []
      /// Another gateway that runs already.
      var first: [(String, String)]?
      let line: String
    }

    /// A gateway beside that shares nothing with the usual one.
    static let apart = [
      ("name: alpha", "name: other"), ("culvert0", "culvert9"), ("10.1.0.1/24", "10.7.0.1/24"),
      ("10.2.0.0/24", "10.8.0.0/24"), ("run/alpha", "run/other"), ("state/alpha", "state/other"),
      ("mtu", "# mtu"), ("control:", "listen: 4501\ncontrol:"), ("there.key", "other.key"),
      ("back.key", "another.key"),
    ]
    /// The same, but for one thing.
    static func sharing(_ what: String) -> [(String, String)] {
      precondition(apart.contains { $0.0 == what })
      return apart.filter { $0.0 != what }
    }

    static let refusals = [
      Refusal(
        testDescription: "port in use", first: sharing("control:"),
        line: "listen on UDP 0.0.0.0:4500: Address already in use; "),
      Refusal(
        testDescription: "device in use", first: sharing("culvert0"),
        line: "open TUN device culvert0: Device or resource busy; "),
      Refusal(
        testDescription: "socket in use", first: sharing("run/alpha"),
        line: "a gateway answers at DIR/run/alpha.sock already; "),
      Refusal(
        testDescription: "state in use", first: sharing("state/alpha"),
        line: "state directory DIR/state/alpha is in use by another gateway; "),
      Refusal(
        testDescription: "address taken", before: ["addr add 10.1.0.1/32 dev wire"],
        line: "add address 10.1.0.1 to culvert0: Address already in use; "),
      Refusal(
        testDescription: "state on a file", edits: [("state/alpha", "there.key/x")],
        line: "create directory DIR/there.key/x: Not a directory; "),
      Refusal(
        testDescription: "socket on a file", edits: [("run/alpha.sock", "there.key")],
        line: "DIR/there.key exists and is not a socket; "),
      Refusal(
        testDescription: "records that cannot be written", edits: [("state/alpha", "/sys/kernel")],
        line: "write /sys/kernel/"),
    ]

    @Test(.timeLimit(.minutes(1)), arguments: refusals)
    func aFailedStartSaysWhyAndLeavesNothing(_ refusal: Refusal) async throws {
      let sites = try await blocking { try Sites() }
      try await blocking { try sites.namespace(0).ip(refusal.before) }
      var first: ProcessHandle?
      if let edits = refusal.first {
        try sites.write(0, edits, as: "first")
        let path = "\(sites.directory.path)/first.yaml"
        let socket = edits.contains { $0.0 == "run/alpha" } ? "other" : "alpha"
        first = try await sites.start(path, ControlClient(path: "\(sites.directory.path)/run/\(socket).sock"))
      }
      try sites.write(0, refusal.edits)
      let before = try await sites.inventory(0)
      let result = try await sites.run(["gateway", "--config", sites.file(0)])
      #expect(result.status == .exited(1))
      let lines = result.lines.filter { !$0.contains(" info ") }
      #expect(lines.count == 1, "\(lines)")
      let line = lines.first?.replacing(sites.directory.path, with: "DIR") ?? ""
      #expect(line.hasPrefix("culvert: \(refusal.line)"), "\(line)")
      #expect(line.contains("; "), "the remedy is missing: \(line)")
      let after = try await sites.inventory(0)
      #expect(after == before)
      if let first {
        first.signal(SIGTERM)
        let status = try await sites.wait(first)
        #expect(status == .exited(0))
      }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("setpriv") && Tool.exists("unshare")))
    func whatTheMachineLacksIsSaid() async throws {
      let sites = try await blocking { try Sites() }
      let before = try await sites.inventory(0)
      let command = [Sites.program, "gateway", "--config", sites.file(0)]
      let hidden = "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\""
      let attempts = [
        (["setpriv", "--bounding-set", "-net_admin"] + command, "culvert: no privilege to set up a tunnel device"),
        (["unshare", "-m", "sh", "-c", hidden] + command, "culvert: /dev/net/tun is missing; "),
      ]
      for (words, line) in attempts {
        let result = try await sites.run(words[0], Array(words.dropFirst()))
        #expect(result.status == .exited(1))
        #expect(result.lines.count == 1 && result.lines[0].hasPrefix(line), "\(result.lines)")
      }
      let after = try await sites.inventory(0)
      #expect(after == before)
    }

    @Test(
      arguments: [
        (["keygen", "x"], 64), (["keygen", "--secret", "--cipher", "aes-128-gcm", "x"], 64), (["gateway"], 64),
        (["keygen", "--identity", "--secret", "x"], 64), (["keygen", "--ed25519", "x"], 64),
        (["identity"], 64), (["identity", "/nonexistent/x"], 1),
        (["keygen", "--identity", "--ed25519", "--rsa", "x"], 64), (["keygen", "--identity", "/nonexistent/x"], 1),
        (["reload"], 64), (["show", "a", "--control", "b"], 64), (["nonsense"], 64), (["--help"], 0),
        (["keygen", "--help"], 0),
        (["check", "/nonexistent.yaml"], 1), (["show", "nobody"], 1),
        (["show", "--json", "--control", "/nonexistent"], 1),
        (["keygen", "--secret", "/nonexistent/x"], 1),
      ] as [([String], Int32)])
    func exitStatuses(_ arguments: [String], _ status: Int32) async throws {
      let process = try await blocking {
        let process = try ProcessHandle(Sites.program, arguments)
        _ = try process.wait(timeout: 20)
        return process
      }
      #expect(process.status == .exited(status), "\(process.output)")
      if status == 1 { #expect(process.output.split(separator: "\n").count == 1, "\(process.output)") }
    }
  }
}
