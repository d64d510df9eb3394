import Dataplane
import Foundation
import Gateway
import Glibc
import Lab
import PacketIO
import TestSupport
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
  /// Where keys come from.
  enum Keys: Sendable {
    /// They are agreed upon by two who share this file.
    case secret(String)
    /// They are agreed upon by two who have these.
    case identities([Side: Identity])
    /// They are given, one for each direction; both follow from the text of a secret.
    case manual(String)
  }

  /// Who a gateway is: its private key's file, and how it is known to others.
  struct Identity: Sendable {
    let pem: String
    let publicPEM: String
    let gid: String
  }

  let side: Side
  let namespace: Namespace
  let directory: TemporaryDirectory
  private let keys: Keys

  /// - Parameter secret: what both sides share.
  convenience init(
    _ side: Side, in namespace: Namespace, secret: String, settings: String = "", peerSettings: String = ""
  ) throws {
    try self.init(side, in: namespace, keys: .secret(secret), settings: settings, peerSettings: peerSettings)
  }

  init(_ side: Side, in namespace: Namespace, keys: Keys, settings: String = "", peerSettings: String = "") throws {
    self.side = side
    self.namespace = namespace
    self.keys = keys
    directory = try TemporaryDirectory()
    switch keys {
    case .secret(let text): try directory.write("shared.secret", text)
    case .identities(let identities): try directory.write("gateway.key", identities[side]?.pem ?? "")
    case .manual(let text):
      let derived = GatewaySite.associations(of: side, secret: text)
      for (name, half) in [("send", derived.outbound), ("receive", derived.inbound)] {
        try directory.write("\(name).key", half.key.hexadecimal + "\n")
      }
    }
    try write(settings: settings, peerSettings: peerSettings)
  }

  /// Manual keys of a side.
  static func associations(of side: Side, secret text: String) -> StaticAssociations {
    let digits = text.split(separator: "\n").first { !$0.hasPrefix("#") } ?? ""
    return StaticAssociations(
      secret: KeyMaterial(bytes(digits)), local: side.rawValue, remote: side.other.rawValue, cipher: .aes128GCM)
  }

  /// Of digits.
  static func bytes(_ digits: Substring) -> [UInt8] {
    stride(from: 0, to: digits.utf8.count, by: 2).compactMap { UInt8(digits.dropFirst($0).prefix(2), radix: 16) }
  }

  /// Lines of the peer that say where its keys come from.
  private var keyLines: String {
    switch keys {
    case .secret: return "secret: shared.secret"
    case .identities(let identities): return "gid: \"\(identities[side.other]?.gid ?? "")\""
    case .manual(let text):
      let derived = GatewaySite.associations(of: side, secret: text)
      return """
        send: {spi: \(derived.outbound.spi), key: send.key}
            receive: {spi: \(derived.inbound.spi), key: receive.key}
        """
    }
  }

  private var identityLine: String {
    if case .identities = keys { return "identity: gateway.key" }
    return ""
  }

  var file: String { "\(directory.path)/\(side).yaml" }
  var control: String { "\(directory.path)/run/\(side).sock" }

  /// Writes the file anew.
  /// - Parameters:
  ///   - settings: lines at the top level.
  ///   - peerSettings: lines of the peer, indented by four.
  ///   - more: what follows the peer.
  ///   - paths: to the peer; nil: over UDP and IPv4.
  func write(settings: String = "", peerSettings: String = "", more: String = "", paths: String? = nil) throws {
    let other = side.other
    let paths = paths ?? "address: \(other.outer4)"
    try directory.write(
      "\(side).yaml",
      """
      name: \(side)
      interface: {name: \(TunnelPlan.device), addresses: [\(side.inner4)/32, "\(side.inner6)/128"], mtu: 1400}
      control: run/\(side).sock
      state: state
      \(settings)
      \(identityLine)
      firewall: {rules: [{number: 10, name: everything, action: allow}]}
      peers:
        - name: \(other)
          \(paths)
          prefixes: [\(other.inner4)/32, "\(other.inner6)/128"]
          \(keyLines)
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

  /// A new identity of each side, as `culvert keygen` makes it.
  /// - Parameter kind: of key, an option.
  static func makeIdentities(_ kind: [String] = []) async throws -> [Side: Identity] {
    var identities: [Side: Identity] = [:]
    for side in Side.allCases {
      let directory = try TemporaryDirectory()
      let path = "\(directory.path)/\(side).key"
      let outcome = try await Program.run(["keygen", "--identity"] + kind + [path])
      #expect(outcome.status == .exited(0) && outcome.lines.count == 2, "\(outcome.lines)")
      // "GID 2001:22:… (abcde-fghij-…)"
      let words = outcome.lines.last?.split(separator: " ").map(String.init) ?? []
      try #require(words.count == 3 && words[0] == "GID")
      identities[side] = Identity(
        pem: try String(contentsOfFile: path, encoding: .utf8),
        publicPEM: try String(contentsOfFile: path + ".pub", encoding: .utf8), gid: words[1])
    }
    return identities
  }

  /// Starts the gateways of a pair, and waits until they have keys.
  static func startPair(_ a: GatewaySite, _ b: GatewaySite) async throws -> (ProcessHandle, ProcessHandle) {
    let processes = (try await a.start(), try await b.start())
    try await processes.0.waitForKeys()
    try await processes.1.waitForKeys()
    return processes
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

  /// Keys and salts under which packets go and come, as `culvert capture` gives them to tshark.
  func trafficKeys() async throws -> [[UInt8]] {
    let directory = try TemporaryDirectory()
    let keys = "\(directory.path)/esp_sa"
    let outcome = try await Program.run(
      ["capture", "--control", control, "--seconds", "0.2", "--keys", keys, "\(directory.path)/capture.pcapng"])
    #expect(outcome.status == .exited(0), "\(outcome.lines)")
    let lines = try String(contentsOfFile: keys, encoding: .utf8).split(separator: "\n")
    // "IPv4","*","*","0x1001","AES-GCM with 16 octet ICV [RFC4106]","0x…","NULL",""
    let found = lines.filter { $0.hasPrefix("\"IPv4") }.compactMap { line in
      line.split(separator: "\"").filter { $0.hasPrefix("0x") }.max { $0.count < $1.count }
    }
    return found.map { GatewaySite.bytes($0.dropFirst(2)) }
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

extension ProcessHandle {
  /// How often a gateway's log says so.
  func count(_ words: String) -> Int { output.components(separatedBy: words).count - 1 }

  /// Waits until a gateway's log says that keys are agreed upon, so many times.
  func waitForKeys(_ times: Int = 1, timeout: Double = 20) async throws {
    try await blocking {
      try self.waitUntil("keys were agreed upon", timeout: timeout) { $0.count("keys are agreed upon") >= times }
    }
  }
}
