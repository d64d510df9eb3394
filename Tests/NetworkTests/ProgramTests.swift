import Foundation
import Testing

@testable import Lab

/// The programs as users run them; they lie beside the tests.
private func program(_ name: String) throws -> String {
  let path = URL(filePath: Tool.thisProgram).deletingLastPathComponent().appending(path: name).path
  return try #require(Tool.path(path), "\(path) was not built")
}

/// What a process has left behind: its namespaces and directories.
private func remains(of pid: pid_t) -> [String] {
  ["/run/netns", "/tmp"].flatMap { place in
    System.names(in: place).filter { $0.hasPrefix("culvert-\(pid)-") }.map { "\(place)/\($0)" }
  }
}

/// Why no gateway can run here; says so when it cannot.
private let canRunGateways: Bool = {
  guard canMakeNamespaces else { return false }
  if System.permits("/dev/net/tun", R_OK | W_OK) { return true }
  print("SKIPPED: all tests of gateways: /dev/net/tun is missing")
  return false
}()

extension NetworkTests {
  @Suite(.enabled(if: canRunGateways, "needs root, iproute2 and /dev/net/tun: see SKIPPED above"))
  struct DemoTests {
    /// host-a ── gateway-a ══ gateway-b ── host-b
    @Test func theDemonstrationSucceedsAndLeavesNothing() throws {
      let demo = try ProcessHandle(try program("culvert-demo"), ["--size", "8"])
      #expect(try demo.wait(timeout: 120) == .exited(0), "\(demo.output)")
      #expect(demo.output.split(separator: "\n").filter { $0.hasSuffix("digests agree") }.count == 2)
      #expect(demo.output.contains("and on 0 of the wire"))
      #expect(remains(of: demo.pid) == [])
    }

    @Test(arguments: [SIGINT, SIGTERM]) func anInterruptedDemonstrationLeavesNothing(signal: Int32) throws {
      let demo = try ProcessHandle(try program("culvert-demo"), ["--size", "1", "--hold"])
      try demo.waitUntil("holding", timeout: 120) { $0.output.contains("until you press Ctrl-C") }
      #expect(remains(of: demo.pid).count == 5)
      demo.signal(signal)
      #expect(try demo.wait(timeout: 20) == .exited(128 + signal))
      #expect(remains(of: demo.pid) == [])
    }

    @Test func whatAKilledDemonstrationLeavesIsReclaimed() throws {
      let demo = try ProcessHandle(try program("culvert-demo"), ["--size", "1", "--hold"])
      try demo.waitUntil("holding", timeout: 120) { $0.output.contains("until you press Ctrl-C") }
      demo.signal(SIGKILL)
      #expect(try demo.wait(timeout: 20) == .killed(signal: SIGKILL))
      #expect(!remains(of: demo.pid).isEmpty)
      Cleanup.reclaimAbandoned()
      #expect(remains(of: demo.pid) == [])
    }
  }

  @Suite struct BenchTests {
    private static func run(_ arguments: [String]) throws -> (status: ProcessHandle.Status, output: String) {
      let process = try ProcessHandle(try program("vpnbench"), arguments)
      return (try process.wait(timeout: 300), process.output)
    }

    @Test(arguments: [
      ["crypto", "--sizes", "64", "1400", "--seconds", "0.001"], ["pipeline", "--seconds", "0.001"],
      ["scale", "--peers", "5", "--flows", "50", "--seconds", "0.001"],
    ])
    func resultsComeAsTableAndJSON(arguments: [String]) throws {
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/results.json"
      let (status, output) = try BenchTests.run(arguments + ["--rounds", "2", "--json", file])
      #expect(status == .exited(0), "\(output)")
      let data = try Data(contentsOf: URL(filePath: file))
      let report = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
      let results = try #require(report["results"] as? [[String: Any]])
      #expect(!results.isEmpty)
      for result in results {
        let values = try #require((result["values"] as? [String: Any])?["values"] as? [Double])
        #expect(values.count == 2 && values.allSatisfy { $0 > 0 })
      }
      // A result compared with itself shows no change.
      let comparison = try BenchTests.run(["compare", file, file])
      #expect(comparison.status == .exited(0))
      #expect(comparison.output.contains("0.0 %"))
      #expect(!comparison.output.contains("better") && !comparison.output.contains("worse"))
    }

    /// What was measured, as "subject metric".
    private static func figures(_ file: String) throws -> Set<String> {
      let data = try Data(contentsOf: URL(filePath: file))
      let report = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
      let results = try #require(report["results"] as? [[String: Any]])
      return Set(
        results.compactMap { result in
          guard let subject = result["subject"] as? String, let metric = result["metric"] as? String else { return nil }
          return "\(subject) \(metric)"
        })
    }

    @Test(.enabled(if: canRunGateways, "needs root, iproute2 and /dev/net/tun: see SKIPPED above"))
    func theTunnelScenarioMeasuresItsBoundsAndCulvert() throws {
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/results.json"
      let process = try ProcessHandle(
        try program("vpnbench"),
        ["tunnel", "--rounds", "1", "--seconds", "0.3", "--only", "tcp1", "ping", "--no-peers", "--json", file])
      #expect(try process.wait(timeout: 300) == .exited(0), "\(process.output)")
      #expect(!process.output.contains("not measured"), "\(process.output)")
      let figures = try BenchTests.figures(file)
      for subject in ["veth", "TUN-TUN", "null cipher", "culvert"] {
        for metric in ["tcp-1", "ping-p50"] { #expect(figures.contains("\(subject) \(metric)")) }
      }
      #expect(remains(of: process.pid) == [])
    }

    /// host-a ── gateway-a ══ gateway-b ── host-b, for every program that is installed.
    @Test(.enabled(if: canRunGateways, "needs root, iproute2 and /dev/net/tun: see SKIPPED above"))
    func theRoutedScenarioSetsUpWhatIsInstalled() throws {
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/results.json"
      let process = try ProcessHandle(
        try program("vpnbench"),
        [
          "tunnel", "--topology", "routed", "--ip", "6", "--rounds", "2", "--seconds", "0.2", "--pings", "20", "--only",
          "ping", "--json", file, "--chart", "\(directory.path)/chart.svg",
        ])
      #expect(try process.wait(timeout: 300) == .exited(0), "\(process.output)")
      let troubles = process.output.split(separator: "\n").filter {
        $0.contains("not measured") && !$0.contains("carries IPv4 only")
      }
      #expect(troubles.isEmpty, "\(process.output)")
      let figures = try BenchTests.figures(file)
      for subject in ["veth", "TUN-TUN", "null cipher", "culvert"] { #expect(figures.contains("\(subject) ping-p50")) }
      #expect(figures.contains("culvert memory-growth"))
      // Each other program was measured, or it is said why not.
      for peer in ["wireguard-go", "strongswan", "openvpn", "openvpn-tcp", "nebula", "fastd", "tinc"] {
        #expect(
          figures.contains("\(peer) ping-p50") || process.output.contains("left out: \(peer),")
            || process.output.contains("\(peer): it carries IPv4 only"))
      }
      #expect(try String(contentsOfFile: "\(directory.path)/chart.svg", encoding: .utf8).hasPrefix("<svg "))
      #expect(remains(of: process.pid) == [])
    }

    @Test(.enabled(if: canRunGateways, "needs root, iproute2 and /dev/net/tun: see SKIPPED above"))
    func theLoopbackScenarioMeasuresEveryCipher() throws {
      let directory = try TemporaryDirectory()
      let file = "\(directory.path)/results.json"
      let process = try ProcessHandle(
        try program("vpnbench"),
        ["loopback", "--rounds", "1", "--seconds", "0.2", "--pings", "20", "--only", "tcp1", "--json", file])
      #expect(try process.wait(timeout: 300) == .exited(0), "\(process.output)")
      #expect(!process.output.contains("not measured"), "\(process.output)")
      let figures = try BenchTests.figures(file)
      for subject in ["TUN-TUN", "null cipher", "aes-128-gcm openssl", "aes-256-gcm openssl"] {
        #expect(figures.contains("\(subject) tcp-1"))
      }
      #expect(remains(of: process.pid) == [])
    }

    @Test func mistakesAreNamedInOneLine() throws {
      let (status, output) = try BenchTests.run(["compare", "/nonexistent.json", "/nonexistent.json"])
      #expect(status != .exited(0))
      #expect(output == "Error: /nonexistent.json cannot be read\n")
    }
  }
}
