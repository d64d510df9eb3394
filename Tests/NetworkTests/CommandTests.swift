import ControlPlane
import Dataplane
import Foundation
import Lab
import Testing

extension NetworkTests {
  /// The `culvert` command as an operator meets it: files, signals, exit statuses, and one line for each refusal.
  @Suite struct CommandTests {
    /// Two machines on one wire, with a file for each, and gateways that are processes.
    final class Sites: Sendable {
      static let names = ["alpha", "beta"]
      let network: Network
      let directory: TemporaryDirectory

      init() throws {
        directory = try TemporaryDirectory()
        network = try Network(.direct)
        try KeyFile.create(.secret, at: "\(directory.path)/both.secret")
        for side in 0...1 { try write(side) }
      }

      deinit { network.remove() }

      func namespace(_ side: Int) -> Namespace { network[["a", "b"][side]] }
      func control(_ side: Int) -> String { "\(directory.path)/run/\(Sites.names[side]).sock" }
      func file(_ side: Int) -> String { "\(directory.path)/\(Sites.names[side]).yaml" }
      func client(_ side: Int) -> ControlClient { ControlClient(path: control(side)) }

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
            secret: both.secret

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

      func start(_ side: Int) throws -> ProcessHandle {
        let process = try ProcessHandle(Sites.program, ["gateway", "--config", file(side)], in: namespace(side))
        let client = client(side)
        try process.waitUntil("gateway runs", timeout: 20) { _ in (try? client.report()) != nil }
        return process
      }

      /// Runs a command to its end.
      func run(_ arguments: [String], side: Int = 0) throws -> (status: ProcessHandle.Status, lines: [String]) {
        let process = try ProcessHandle(Sites.program, arguments, in: namespace(side))
        let status = try process.wait(timeout: 20)
        return (status, process.output.split(separator: "\n").map(String.init))
      }

      /// Everything in the directory, and every device of a machine.
      func inventory(_ side: Int) throws -> [String] {
        let files = FileManager.default.enumerator(atPath: directory.path)?.compactMap { $0 as? String } ?? []
        let devices = try Tool.run("ip", ["-n", namespace(side).name, "-br", "link"]).split(separator: "\n")
        let routes = try Tool.run("ip", ["-n", namespace(side).name, "route"]).split(separator: "\n")
        return files.sorted() + devices.map { String($0.prefix { $0 != " " }) } + routes.map(String.init)
      }

      /// Beside the program that runs the tests.
      static let program = PosixPath.directory(of: Tool.thisProgram) + "/culvert"
    }

    private enum PosixPath {
      static func directory(of path: String) -> String { String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) }
    }

    private func outbound(_ report: GatewayReport) throws -> Statistics.Association {
      try #require(report.statistics.peers.first?.associations.first { $0.direction == .outbound })
    }

    @Test(.timeLimit(.minutes(2)))
    func aLifeFromTheFirstStartToTheLast() async throws {
      let sites = try await blocking { try Sites() }
      let before = try await blocking { try sites.inventory(0) }
      let check = try await blocking { try sites.run(["check", sites.file(0)]) }
      #expect(check.status == .exited(0))
      #expect(check.lines.first == "\(sites.file(0)): OK")

      let beta = try await blocking { try sites.start(1) }
      var alpha = try await blocking { try sites.start(0) }
      let pings = Pings(from: sites.namespace(0), to: "10.2.0.1")
      try await pings.expectAnswers([0, 56, 1372])

      // Reload: a file with errors changes nothing, another MTU is in force at once, and SIGHUP does the same.
      try sites.write(0, [("mtu", "mut")])
      let refused = try await blocking { try sites.run(["reload", "--control", sites.control(0)]) }
      #expect(refused.status == .exited(1))
      #expect(
        refused.lines == [
          "culvert: the old configuration stays: \(sites.file(0)):5: interface: no setting is called 'mut'; "
            + "did you mean 'mtu'?"
        ])
      try sites.write(0, [("name: culvert0", "name: culvert1")])
      #expect(try await blocking { try sites.run(["reload", "--control", sites.control(0)]) }.status == .exited(1))
      try sites.write(0, [("1400", "1390")])
      #expect(try await blocking { try sites.run(["reload", "--control", sites.control(0)]) }.status == .exited(0))
      #expect(try await blocking { try sites.client(0).report() }.mtu == 1390)
      try sites.write(0)
      alpha.signal(SIGHUP)
      #expect(try await eventually { try await blocking { try sites.client(0).report() }.mtu == 1400 })
      try await pings.expectAnswers()

      // Show, as text and as JSON.
      let text = try await blocking { try sites.run(["show", "--control", sites.control(0)]) }
      #expect(text.lines.first?.hasPrefix("alpha on culvert0, up ") == true)
      #expect(text.lines.contains { $0.contains("to beta") && $0.contains("aes-128-gcm") })
      let json = try await blocking { try sites.run(["show", "--json", "--control", sites.control(0)]) }
      let decoded = try JSONDecoder().decode(GatewayReport.self, from: Data(json.lines.joined().utf8))
      #expect(decoded.name == "alpha" && decoded.process == alpha.pid)

      // A crash skips numbers and repeats none; the peer follows without being told.
      let crashed = try outbound(try await blocking { try sites.client(0).report() })
      alpha.signal(SIGKILL)
      _ = try await blocking { [alpha] in try alpha.wait(timeout: 5) }
      alpha = try await blocking { try sites.start(0) }
      let restarted = try outbound(try await blocking { try sites.client(0).report() })
      #expect(restarted.sequence > crashed.sequence + 1_000_000)
      try await pings.expectAnswers()

      // A clean stop skips none, and leaves nothing but the records.
      let last = try outbound(try await blocking { try sites.client(0).report() })
      #expect(try await blocking { [alpha] in alpha.terminate() } == .exited(0))
      #expect(alpha.output.contains("gateway has stopped"))
      let left = try await blocking { try sites.inventory(0) }.filter { !$0.hasPrefix("state") && !$0.hasPrefix("run") }
      #expect(left == before)
      alpha = try await blocking { try sites.start(0) }
      #expect(try outbound(try await blocking { try sites.client(0).report() }).sequence == last.sequence)
      try await pings.expectAnswers()
      alpha.signal(SIGINT)
      #expect(try await blocking { [alpha] in try alpha.wait(timeout: 10) } == .exited(0))
      #expect(try await blocking { beta.terminate() } == .exited(0))
      for process in [alpha, beta] { #expect(!process.output.lowercased().contains("key")) }
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
      ("mtu", "# mtu"), ("control:", "listen: 4501\ncontrol:"),
    ]
    /// The same, but for one thing.
    static func sharing(_ what: String) -> [(String, String)] {
      precondition(apart.contains { $0.0 == what })
      return apart.filter { $0.0 != what }
    }

    static let refusals = [
      Refusal(testDescription: "port in use", first: sharing("control:"), line: "listen on UDP 0.0.0.0:4500: Address already in use; "),
      Refusal(testDescription: "device in use", first: sharing("culvert0"), line: "open TUN device culvert0: Device or resource busy; "),
      Refusal(testDescription: "socket in use", first: sharing("run/alpha"), line: "a gateway answers at DIR/run/alpha.sock already; "),
      Refusal(testDescription: "state in use", first: sharing("state/alpha"), line: "state directory DIR/state/alpha is in use by another gateway; "),
      Refusal(
        testDescription: "address taken", before: ["addr add 10.1.0.1/32 dev wire"],
        line: "add address 10.1.0.1 to culvert0: Address already in use; "),
      Refusal(
        testDescription: "state on a file", edits: [("state/alpha", "both.secret/x")],
        line: "create directory DIR/both.secret/x: Not a directory; "),
      Refusal(
        testDescription: "socket on a file", edits: [("run/alpha.sock", "both.secret")],
        line: "DIR/both.secret exists and is not a socket; "),
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
        let client = ControlClient(path: "\(sites.directory.path)/run/\(socket).sock")
        first = try await blocking {
          let process = try ProcessHandle(Sites.program, ["gateway", "--config", path], in: sites.namespace(0))
          try process.waitUntil("the first gateway runs", timeout: 20) { _ in (try? client.report()) != nil }
          return process
        }
      }
      try sites.write(0, refusal.edits)
      let before = try await blocking { try sites.inventory(0) }
      let result = try await blocking { try sites.run(["gateway", "--config", sites.file(0)]) }
      #expect(result.status == .exited(1))
      let lines = result.lines.filter { !$0.contains(" info ") }
      #expect(lines.count == 1, "\(lines)")
      let line = lines.first?.replacing(sites.directory.path, with: "DIR") ?? ""
      #expect(line.hasPrefix("culvert: \(refusal.line)"), "\(line)")
      #expect(line.contains("; "), "the remedy is missing: \(line)")
      #expect(try await blocking { try sites.inventory(0) } == before)
      if let first { #expect(try await blocking { first.terminate() } == .exited(0)) }
    }

    @Test(.timeLimit(.minutes(1)), .enabled(if: Tool.exists("setpriv") && Tool.exists("unshare")))
    func whatTheMachineLacksIsSaid() async throws {
      let sites = try await blocking { try Sites() }
      let before = try await blocking { try sites.inventory(0) }
      let command = [Sites.program, "gateway", "--config", sites.file(0)]
      let attempts = [
        (["setpriv", "--bounding-set", "-net_admin"] + command, "culvert: no privilege to set up a tunnel device"),
        (
          ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\""] + command,
          "culvert: /dev/net/tun is missing; "
        ),
      ]
      for (words, line) in attempts {
        let output = try await blocking {
          let process = try ProcessHandle(words[0], Array(words.dropFirst()), in: sites.namespace(0))
          #expect(try process.wait(timeout: 20) == .exited(1))
          return process.output
        }
        #expect(output.hasPrefix(line) && output.split(separator: "\n").count == 1, "\(output)")
      }
      #expect(try await blocking { try sites.inventory(0) } == before)
    }

    @Test(arguments: [
      (["keygen", "x"], 64), (["keygen", "--secret", "--cipher", "aes-128-gcm", "x"], 64), (["gateway"], 64),
      (["reload"], 64), (["show", "a", "--control", "b"], 64), (["nonsense"], 64), (["--help"], 0), (["keygen", "--help"], 0),
      (["check", "/nonexistent.yaml"], 1), (["show", "nobody"], 1), (["show", "--json", "--control", "/nonexistent"], 1),
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
