import ArgumentParser
import Foundation
import Gateway
import Host
import PacketIO
import Transports

struct TicketCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ticket",
    abstract: "Issues tickets for hairpin proxies and identity relays, as a control system would.",
    discussion: """
        culvert ticket keygen control.key               once; give control.key.pub to culvert-relay
        culvert ticket issue --key control.key --between oslo,bergen --proxy 203.0.113.9:4501 --valid 12h

      writes oslo-bergen.oslo.ticket and oslo-bergen.bergen.ticket. Bring each to its gateway, safely.
      """,
    subcommands: [TicketKeygen.self, TicketIssue.self, TicketPair.self], defaultSubcommand: TicketIssue.self)
}

struct TicketKeygen: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keygen", abstract: "Writes a new signing key to a file, and its public half beside it.")

  @Flag(help: "Replace the files if they exist.")
  var force = false

  @Argument(help: "The file to write; FILE.pub gets the public half.", completion: .file())
  var output: String

  func run() async throws {
    try await reportingErrors {
      try TicketFiles.createSigningKey(at: output, replace: force)
      print("\(output): signing key\n\(output).pub: public key, for culvert-relay")
    }
  }
}

struct TicketIssue: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "issue", abstract: "Writes a ticket for two gateways, a file for each.")

  @Option(help: "The signing key.", completion: .file())
  var key: String

  @Option(help: "The names of both gateways: oslo,bergen.")
  var between: String

  @Option(help: "The proxy's control port as the gateways reach it; two, separated by a comma, where they differ.")
  var proxy: String

  @Option(help: "The proxy's own name, where its file sets one: no other takes the ticket, and it takes none without.")
  var proxyName = ""

  @Option(help: "From when on: 2026-11-22T08:00:00Z. Now when nothing is said.")
  var from: String?

  @Option(help: "How long: 90s, 30m, 12h or 7d.")
  var valid = "1h"

  @Option(help: "Time from its first use after which the hairpin ends.")
  var lifetime: String?

  @Option(help: "A time of every day, UTC: 08:00-18:00, or 08:00:00-18:00:30. Up to four.")
  var window: [String] = []

  @Option(help: "Bits a second in each direction: 100M.")
  var bandwidth: String?

  @Option(help: "Bytes that may pass at once after a pause.")
  var burst: UInt32 = 0

  @Option(help: "0 to 7; higher goes first at a busy proxy.")
  var priority: UInt8 = 3

  @Option(help: "Time without packets after which the hairpin ends.")
  var idle: String?

  @Option(help: "Bytes of both directions after which the hairpin ends.")
  var bytes: UInt64 = 0

  @Option(help: "How each may reach the proxy: udp, tcp or udp+tcp; two, separated by a comma, where they differ.")
  var encapsulations = "udp+tcp"

  @Option(help: "The directory for the files.", completion: .directory)
  var out = "."

  @Flag(help: "Replace files that exist.")
  var force = false

  /// What the option costs that is left out, for standard error; nil: nothing.
  static func warning(proxyName: String) -> String? {
    guard proxyName.isEmpty else { return nil }
    return "culvert: warning: every relay of this key that has no name takes the ticket, each up to its limits; "
      + "give each a 'name', and the ticket --proxy-name\n"
  }

  func run() async throws {
    try await reportingErrors {
      let authority = try TicketFiles.readSigningKey(key)
      let names = pair(between)
      guard let names, names.0 != names.1 else {
        throw OperatorError("--between '\(between)' names no two gateways", remedy: "write it like oslo,bergen")
      }
      let proxies = try ends(proxy, "--proxy", "write it like 203.0.113.9:4501") {
        Endpoint($0, defaultPort: HairpinTicketFile.standardPort)
      }
      let encapsulations = try ends(
        encapsulations, "--encapsulations", "write udp, tcp or udp+tcp", TicketIssue.encapsulations)
      var random = SystemRandomNumberGenerator()
      guard let first = HairpinPrivateKey.generate(using: &random),
        let second = HairpinPrivateKey.generate(using: &random)
      else { throw OperatorError("no key can be made", remedy: "check that libcrypto has Ed25519") }
      var ticket = HairpinTicket(
        number: .random(using: &random), proxy: proxyName,
        first: .init(name: names.0, encapsulations: encapsulations.0, key: first.publicKey),
        second: .init(name: names.1, encapsulations: encapsulations.1, key: second.publicKey), notBefore: try start(),
        notAfter: 0,
        burst: burst, byteLimit: bytes, priority: priority)
      ticket.notAfter = ticket.notBefore + UInt64(try TicketIssue.seconds(valid, "--valid"))
      ticket.lifetime = try lifetime.map { try TicketIssue.seconds($0, "--lifetime") } ?? 0
      ticket.idle = try idle.map { try TicketIssue.seconds($0, "--idle") } ?? 0
      ticket.windows = try window.map(TicketIssue.window)
      if let bandwidth {
        guard let rate = BitRate(bandwidth) else {
          throw OperatorError("--bandwidth '\(bandwidth)' is no rate", remedy: "write bits a second, like 100M")
        }
        ticket.bandwidth = rate.bitsPerSecond
      }
      let signed: SignedHairpinTicket
      do {
        signed = try SignedHairpinTicket(signing: ticket, with: authority)
      } catch {
        throw OperatorError("\(error)", remedy: "see 'culvert help ticket issue'")
      }
      let base = "\(out)/\(names.0)-\(names.1)"
      for (end, key, proxy, name) in [
        (HairpinEnd.first, first, proxies.0, names.0), (HairpinEnd.second, second, proxies.1, names.1),
      ] {
        let path = "\(base).\(name).ticket"
        try TicketFiles.write(
          try HairpinTicketFile(proxy: proxy, end: end, key: key, ticket: signed), to: path, replace: force)
        print("\(path): for \(name)")
      }
      if let warning = Self.warning(proxyName: proxyName) { FileHandle.standardError.write(Data(warning.utf8)) }
    }
  }

  // MARK: Values

  private func pair(_ text: String) -> (String, String)? {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    return parts.count == 2 && !parts[0].isEmpty && !parts[1].isEmpty ? (parts[0], parts[1]) : nil
  }

  /// One value for both, or two.
  private func ends<T>(_ text: String, _ option: String, _ remedy: String, _ parse: (String) -> T?) throws -> (T, T) {
    let parts = pair(text) ?? (text, text)
    guard let first = parse(parts.0), let second = parse(parts.1) else {
      throw OperatorError("\(option) '\(text)' cannot be read", remedy: remedy)
    }
    return (first, second)
  }

  private static func encapsulations(_ text: String) -> Set<Encapsulation>? {
    switch text {
    case "udp": [.udp]
    case "tcp": [.tcp]
    case "udp+tcp", "tcp+udp": [.udp, .tcp]
    default: nil
    }
  }

  private func start() throws -> UInt64 {
    // Clocks of gateways and proxies differ a little.
    guard let from else { return UInt64(max(Date().timeIntervalSince1970 - 5, 0)) }
    guard let date = try? Date(from, strategy: .iso8601), date.timeIntervalSince1970 >= 0 else {
      throw OperatorError("--from '\(from)' is no time", remedy: "write it like 2026-11-22T08:00:00Z")
    }
    return UInt64(date.timeIntervalSince1970)
  }

  static func seconds(_ text: String, _ option: String) throws -> UInt32 {
    let units: [Character: Int] = ["s": 1, "m": 60, "h": 3600, "d": 86400]
    guard let unit = text.last.flatMap({ units[$0] }), let count = Int(digits: text.dropLast()),
      (1...1_000_000_000).contains(count), let seconds = UInt32(exactly: count * unit)
    else { throw OperatorError("\(option) '\(text)' is no time", remedy: "write it like 90s, 30m, 12h or 7d") }
    return seconds
  }

  static func window(_ text: String) throws -> HairpinTicket.Window {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map(secondOfDay)
    guard ends.count == 2, let start = ends[0], let end = ends[1], start < 86400 else {
      throw OperatorError("--window '\(text)' is no time of day", remedy: "write it like 08:00-18:00")
    }
    return HairpinTicket.Window(start: start, end: end == 0 ? 86400 : end)
  }

  private static func secondOfDay(_ text: Substring) -> UInt32? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt32(digits: $0) }
    guard (2...3).contains(parts.count), let hour = parts[0], let minute = parts[1], minute < 60 else { return nil }
    let second: UInt32? = parts.count == 3 ? parts[2] : 0
    guard let second, second < 60, hour < 24 || (hour == 24 && minute == 0 && second == 0) else { return nil }
    return hour * 3600 + minute * 60 + second
  }
}
