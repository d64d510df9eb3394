import ArgumentParser
import Foundation
import Gateway
import Host

struct Show: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows what running gateways do: peers, associations, counters, drops.",
    discussion: "Without a name, all gateways on this machine; as JSON, a name gives one object, no name a list.")

  @OptionGroup var target: Target

  @Flag(help: "Print JSON.")
  var json = false

  @Flag(help: "Show who holds how much of what peers and strangers share.")
  var shares = false

  func run() async throws {
    try await reportingErrors {
      if let client = target.client {
        let report = try client.report()
        print(json ? try Show.encode(report) : text(report))
      } else {
        try showAll()
      }
    }
  }

  private func text(_ report: GatewayReport) -> String { shares ? report.sharesText : report.text }

  private func showAll() throws {
    var reports: [GatewayReport] = []
    for path in ControlClient.sockets() {
      do {
        reports.append(try ControlClient(path: path).report())
      } catch {
        complain(error)
      }
    }
    if json {
      print(try Show.encode(reports))
    } else if !reports.isEmpty {
      print(reports.map(text).joined(separator: "\n\n"))
    }
    if reports.isEmpty { throw Show.nobody }
  }

  static let nobody = OperatorError(
    "no gateway runs under \(GatewayPlan.controlDirectory)",
    remedy: "start one with 'culvert gateway --config FILE', or name its socket with --control")

  static func encode(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }
}

struct Reload: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a running gateway read its file again, and says how that went.")

  @OptionGroup var target: Target

  func validate() throws {
    if target.client == nil { throw ValidationError("Name the gateway, or its socket with --control.") }
  }

  func run() async throws {
    try await reportingErrors { try target.client?.reload() }
  }
}

/// Which running gateway is meant.
struct Target: ParsableArguments {
  @Argument(help: "The gateway's name.")
  var name: String?

  @Option(help: "The gateway's control socket, where its file sets 'control'.", completion: .file())
  var control: String?

  func validate() throws {
    if name != nil && control != nil { throw ValidationError("Give a name or --control, not both.") }
  }

  /// Nil: all.
  var client: ControlClient? {
    if let control { return ControlClient(path: control) }
    return name.map { ControlClient(path: "\(GatewayPlan.controlDirectory)/\($0).sock") }
  }
}
