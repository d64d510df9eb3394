import ArgumentParser
import Foundation
import Gateway
import Host
import Identity
import PacketIO
import Relay
import Transports

/// `culvert ticket pair`: what a control system gives two gateways that are to meet at identity relays.
struct TicketPair: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pair", abstract: "Writes a ticket that lets two gateways meet at relays, and names them by GID.",
    discussion: """
        culvert ticket pair --key control.key --between 2001:22:…,2001:22:… --valid 12h oslo-bergen.ticket

      It is no secret. Each of the two, or one of them, has it in its file as 'relay-tickets'; an identity relay takes it \
      that has control.key.pub as 'public-key', and no rule about the two. Or both have it as a path through a hairpin: \
      '- {udp-hairpin: oslo-bergen.ticket, at: "203.0.113.9:4501"}'.
      """)

  @Option(help: "The signing key.", completion: .file())
  var key: String

  @Option(help: "The GIDs of both gateways, separated by a comma.")
  var between: String

  @Option(help: "The relay's own name, where its file sets one: no other takes the ticket, and it takes none without.")
  var proxyName = ""

  @Option(help: "How long, from now on: 90s, 30m, 12h or 7d.")
  var valid = "1h"

  @Option(help: "A time of every day, UTC: 08:00-18:00. Up to four.")
  var window: [String] = []

  @Option(help: "Bits a second in each direction: 100M.")
  var bandwidth: String?

  @Option(help: "0 to 7; higher goes first at a busy relay.")
  var priority: UInt8 = 3

  @Flag(help: "Replace the file if it exists.")
  var force = false

  @Argument(help: "The file to write.", completion: .file())
  var output: String

  func run() async throws {
    try await reportingErrors {
      let authority = try TicketFiles.readSigningKey(key)
      let tags = between.split(separator: ",", omittingEmptySubsequences: false).map { HostIdentityTag(String($0)) }
      guard tags.count == 2, let a = tags[0], let b = tags[1], a != b else {
        throw OperatorError(
          "--between '\(between)' names no two GIDs",
          remedy: "write GIDs as 'culvert identity FILE' prints them, not their short forms")
      }
      var random = SystemRandomNumberGenerator()
      // Clocks of gateways and relays differ a little.
      let start = UInt64(max(Date().timeIntervalSince1970 - 5, 0))
      var ticket = IdentityTicket(
        number: .random(using: &random), RelayPolicy.Pair(a, b), relay: proxyName, notBefore: start,
        notAfter: start + UInt64(try TicketIssue.seconds(valid, "--valid")), priority: priority,
        windows: try window.map(TicketIssue.window))
      if let bandwidth {
        guard let rate = BitRate(bandwidth) else {
          throw OperatorError("--bandwidth '\(bandwidth)' is no rate", remedy: "write bits a second, like 100M")
        }
        ticket.bandwidth = rate.bitsPerSecond
      }
      guard let signed = SignedIdentityTicket(signing: ticket, with: authority) else {
        throw OperatorError(
          "this cannot be a ticket: \(ticket.fault ?? "the key cannot sign")", remedy: "see 'culvert help ticket pair'")
      }
      do throws(SystemError) {
        try PosixFile.writeAtomically(
          Array("\(Base64.encode(signed.bytes))\n".utf8), to: output, mode: 0o644, replace: force)
      } catch {
        throw OperatorError("\(output) cannot be written: \(error.reason)", remedy: "choose another, or use --force")
      }
      print("\(output): for \(ticket.pair)")
      if let warning = TicketIssue.warning(proxyName: proxyName) {
        FileHandle.standardError.write(Data(warning.utf8))
      }
    }
  }
}
