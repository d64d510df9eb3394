import ArgumentParser
import Foundation
import Host
import Relay

/// `culvert-relay show`: who is enrolled, and which pairs can talk.
struct Show: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show an identity relay's gateways, pairs and figures.",
    discussion: """
      Of pairs that cannot talk it says why. The relay answers at the path that its file has as 'control'.
      """)

  @Option(help: "Path of the relay's control socket.", completion: .file())
  var control = "/run/culvert/relay.sock"

  @Flag(help: "One object of JSON.")
  var json = false

  func run() async throws {
    do {
      let line = try RelayControl.ask(.show, at: control)
      if json { return print(String(decoding: line, as: UTF8.self)) }
      guard let report = try? JSONDecoder().decode(RelayReport.self, from: Data(line)) else {
        throw OperatorError(
          "the relay at \(control) has no identity", remedy: "give its file an 'identity', and start it again")
      }
      for line in Show.lines(report) { print(line) }
    } catch {
      Relay.complain(error)
      throw ExitCode.failure
    }
  }

  /// "62 %: thread 62 %, bandwidth 10 %, pairs 1 %; 3 handshakes wait".
  private static func load(_ load: RelayReport.Load) -> String {
    let percent = { (share: Double) in String(format: "%.0f %%", share * 100) }
    return "\(percent(load.share)): thread \(percent(load.thread)), bandwidth \(percent(load.bandwidth)), "
      + "pairs \(percent(load.pairs))" + (load.waiting > 0 ? "; \(load.waiting) handshakes wait" : "")
  }

  /// For people: the relay, its gateways, its pairs, and what has been counted.
  static func lines(_ report: RelayReport) -> [String] {
    var lines = ["relay \(report.gid)", "  load \(load(report.load))"]
    lines += report.gateways.map { gateway in
      "  gateway \(gateway.gid)  \(gateway.address)  heard \(String(format: "%.1f", gateway.silence)) s ago"
    }
    for pair in report.pairs {
      lines.append("  pair \(pair.gateways.joined(separator: " - "))  \(pair.reason ?? "bound")")
      guard pair.packets.contains(where: { $0 > 0 }) || pair.dropped.contains(where: { $0 > 0 }) else { continue }
      for (gateway, place) in zip(pair.gateways, 0...) {
        lines.append(
          "    to \(gateway)  \(pair.packets[place]) packets, \(pair.bytes[place]) bytes, \(pair.dropped[place]) dropped"
        )
      }
    }
    lines += report.counters.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { "  \($0.key) \($0.value)" }
    return lines
  }
}
