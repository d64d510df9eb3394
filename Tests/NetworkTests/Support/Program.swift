import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import Testing

/// The program `culvert`, as it was built with these tests.
enum Program {
  static let path: String = {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return URL(filePath: own).deletingLastPathComponent().appending(path: "culvert").path
  }()

  /// The program `culvert-relay`, beside it.
  static var relay: String { path + "-relay" }

  /// Whether it was built; says so when not.
  static let exists: Bool = {
    if Tool.exists(path) { return true }
    print("SKIPPED: tests of the program culvert: there is none at \(path); run swift build")
    return false
  }()

  struct Outcome {
    let status: ProcessHandle.Status
    let lines: [String]
  }

  /// Runs it to its end; it gets so many seconds.
  /// - Parameter wrapper: what starts it, such as `setpriv` with its options; nothing: itself.
  static func run(
    _ arguments: [String], in namespace: Namespace? = nil, wrapper: [String] = [], timeout: Double = 15
  ) async throws -> Outcome {
    try await blocking {
      let words = wrapper + [path] + arguments
      let process = try ProcessHandle(words[0], Array(words.dropFirst()), in: namespace)
      defer { process.terminate() }
      let status = try process.wait(timeout: timeout)
      return Outcome(status: status, lines: process.output.split(separator: "\n").map(String.init))
    }
  }
}

/// A gateway's file and what belongs to it, in a directory of its own.
final class GatewaySite: Sendable {
  let side: Side
  let namespace: Namespace
  let directory: TemporaryDirectory

  /// - Parameter secret: what both sides share.
  init(_ side: Side, in namespace: Namespace, secret: String, settings: String = "", peerSettings: String = "") throws {
    self.side = side
    self.namespace = namespace
    directory = try TemporaryDirectory()
    try directory.write("shared.secret", secret)
    try write(settings: settings, peerSettings: peerSettings)
  }

  var file: String { "\(directory.path)/\(side).yaml" }
  var control: String { "\(directory.path)/run/\(side).sock" }

  /// Writes the file anew.
  /// - Parameters:
  ///   - settings: lines at the top level.
  ///   - peerSettings: lines of the peer, indented by four.
  ///   - more: what follows the peer.
  func write(settings: String = "", peerSettings: String = "", more: String = "") throws {
    let other = side.other
    try directory.write(
      "\(side).yaml",
      """
      name: \(side)
      interface: {name: \(TunnelPlan.device), addresses: [\(side.inner4)/32, "\(side.inner6)/128"], mtu: 1400}
      control: run/\(side).sock
      state: state
      \(settings)
      firewall: {rules: [{number: 10, name: everything, action: allow}]}
      peers:
        - name: \(other)
          address: \(other.outer4)
          prefixes: [\(other.inner4)/32, "\(other.inner6)/128"]
          secret: shared.secret
      \(peerSettings)
      \(more)
      """)
  }

  /// A new secret for two sides, as `culvert keygen` makes it.
  static func makeSecret() async throws -> String {
    let directory = try TemporaryDirectory()
    let path = "\(directory.path)/secret"
    let outcome = try await Program.run(["keygen", "--secret", path])
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
    return try String(contentsOfFile: path, encoding: .utf8)
  }

  /// Starts the gateway and waits until it runs.
  func start() async throws -> ProcessHandle {
    let site = self
    return try await blocking {
      let process = try ProcessHandle(Program.path, ["gateway", "--config", site.file], in: site.namespace)
      try process.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") }
      return process
    }
  }

  /// What `culvert show` tells programs.
  func report() async throws -> GatewayReport {
    let outcome = try await Program.run(["show", "--control", control, "--json"])
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
    return try JSONDecoder().decode(GatewayReport.self, from: Data(outcome.lines.joined(separator: "\n").utf8))
  }

  /// Interfaces, addresses, routes and rules of the namespace, and the files of the site: what a gateway may leave.
  /// - Parameter withState: also the record of used sequence numbers, which is to stay where there is one.
  func traces(withState: Bool = false) async throws -> [String] {
    let (name, path) = (namespace.name, directory.path)
    return try await blocking {
      var traces: [String] = []
      for arguments in [
        ["-o", "link"], ["-o", "addr"], ["route", "show", "table", "all"], ["-6", "route", "show", "table", "all"],
      ] {
        traces += try Tool.run("ip", ["-n", name] + arguments).split(separator: "\n").map(String.init)
          // What `ip` says of namespaces of other tests that come and go meanwhile.
          .filter { !$0.hasPrefix("Error: Peer netns reference") }
      }
      traces += (FileManager.default.enumerator(atPath: path)?.compactMap { $0 as? String } ?? []).sorted()
      return traces.filter { withState || $0 != "state" && !$0.hasPrefix("state/") }
    }
  }

  /// Expects the traces of an earlier moment, and no others. The kernel lets go of a device a moment after the process
  /// that had it.
  func expectTraces(
    _ before: [String], withState: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    var (new, gone): ([String], [String]) = ([], [])
    _ = try await eventually(within: 3) {
      let now = try await traces(withState: withState)
      new = now.filter { !before.contains($0) }
      gone = before.filter { !now.contains($0) }
      return new.isEmpty && gone.isEmpty
    }
    #expect(new == [], "left behind", sourceLocation: sourceLocation)
    #expect(gone == [], "taken away", sourceLocation: sourceLocation)
  }
}
