import ArgumentParser
import Foundation
import Host
import Relay

/// `culvert-relay show`: who is enrolled, and which pairs can talk; or who holds what all share.
struct Show: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show an identity relay's gateways, pairs and figures; of any relay, who holds what all share.",
    discussion: """
      Of pairs that cannot talk it says why. With --shares it shows of each resource that gateways, holders of tickets and \
      strangers share how much is held, by whom, and who did not get what he wanted: gateways by their GIDs, holders by \
      their tickets, strangers by their addresses. The relay answers at the path that its file has as 'control'.
      """)

  @Option(help: "Path of the relay's control socket.", completion: .file())
  var control = "/run/culvert/relay.sock"

  @Flag(help: "One object of JSON.")
  var json = false

  @Flag(help: "Show who holds how much of what gateways, tickets and strangers share.")
  var shares = false

  func run() async throws {
    do {
      if shares { return try showShares() }
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

  private func showShares() throws {
    let line = try RelayControl.ask(.shares, at: control)
    if json { return print(String(decoding: line, as: UTF8.self)) }
    guard let report = try? JSONDecoder().decode(RelayShares.self, from: Data(line)) else {
      throw OperatorError("the relay at \(control) is about to end", remedy: "ask the next one")
    }
    for line in Show.lines(report) { print(line) }
  }

  /// For people: each resource, and below it who holds some or was refused.
  static func lines(_ report: RelayShares) -> [String] {
    report.shares.flatMap { share in
      ["\(share.resource.rawValue)  \(share.used) of \(share.capacity) held, \(share.refused) refused"]
        + share.holders.map { "  \($0.holder)  \($0.held) held, \($0.refused) refused" }
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
