import ArgumentParser
import Foundation
import Gateway
import Host
import Identity
import PacketIO
import Relay
import Transports

struct PolicyCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy", abstract: "Signs a policy update for an identity relay, as a control system would.",
    discussion: """
        culvert ticket keygen control.key               once; the relay has control.key.pub as 'policy-key'
        culvert policy --key control.key --relay 2001:22:… --number 1 --allow 2001:22:…,2001:22:… first.update
        culvert policy --key control.key --relay 2001:22:… --number 2 --since 1 --remove 2001:22:…,2001:22:… next.update
        culvert-relay update first.update

      Without --since it is the whole policy: nothing else may meet but by a ticket, unless --remove names it.
      """)

  @Option(help: "The signing key.", completion: .file())
  var key: String

  @Option(help: "The relay's GID; no other relay takes the update.")
  var relay: String

  @Option(help: "Its number, above that of the last.")
  var number: UInt64

  @Option(help: "It changes the policy of that number; without it, it is the whole policy.")
  var since: UInt64?

  @Option(
    help: """
      Two GIDs that may meet: GID,GID, then if need be ,bandwidth=100M ,priority=5 ,until=SECONDS since 1970 \
      ,window=08:00-18:00.
      """)
  var allow: [String] = []

  @Option(
    help: """
      Two GIDs that may not meet, not by a ticket either: GID,GID; or one gateway that may meet nobody but those of --allow.
      """)
  var remove: [String] = []

  @Flag(help: "Replace the file if it exists.")
  var force = false

  @Argument(help: "The file to write.", completion: .file())
  var output: String

  func run() async throws {
    try await reportingErrors {
      let authority = try TicketFiles.readSigningKey(key)
      let remedy = "write GIDs as 'culvert identity FILE' prints them, not their short forms"
      guard let relay = HostIdentityTag(relay) else {
        throw OperatorError("--relay '\(self.relay)' is no GID", remedy: remedy)
      }
      let removed = try remove.map { text in
        if let gateway = HostIdentityTag(text) { return RelayPolicy.Pair(gateway, gateway) }
        guard let (pair, rest) = PolicyCommand.pair(text), rest.isEmpty else {
          throw OperatorError("--remove '\(text)' names no GID, and no two", remedy: remedy)
        }
        return pair
      }
      let allowed = try allow.map { text in
        guard let (pair, rest) = PolicyCommand.pair(text) else {
          throw OperatorError("--allow '\(text)' names no two GIDs", remedy: remedy)
        }
        return PolicyUpdate.Rule(pair, try PolicyCommand.terms(rest))
      }
      let update = PolicyUpdate(
        for: relay, number: number, since.map { .changes(since: $0) } ?? .whole, removed: removed, allowed: allowed)
      if let fault = update.fault { throw OperatorError("this cannot be an update: \(fault)", remedy: "see --help") }
      guard let signed = SignedPolicyUpdate(signing: update, with: authority) else {
        throw OperatorError("the update is too long", remedy: "allow fewer pairs")
      }
      do throws(SystemError) {
        try PosixFile.writeAtomically(signed.bytes, to: output, mode: 0o644, replace: force)
      } catch {
        throw OperatorError("\(output) cannot be written: \(error.reason)", remedy: "choose another, or use --force")
      }
      print("\(output): policy \(number), \(allowed.count) allowed, \(removed.count) removed")
    }
  }

  private static func pair(_ text: String) -> (RelayPolicy.Pair, [String])? {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    guard parts.count >= 2, let a = HostIdentityTag(parts[0]), let b = HostIdentityTag(parts[1]), a != b else {
      return nil
    }
    return (RelayPolicy.Pair(a, b), Array(parts.dropFirst(2)))
  }

  private static func terms(_ parts: [String]) throws -> RelayPolicy.Terms {
    var terms = RelayPolicy.Terms()
    for part in parts where !set(&terms, part.split(separator: "=", maxSplits: 1).map(String.init)) {
      throw OperatorError("'\(part)' is no term of a rule", remedy: "see 'culvert policy --help'")
    }
    return terms
  }

  private static func set(_ terms: inout RelayPolicy.Terms, _ words: [String]) -> Bool {
    guard words.count == 2 else { return false }
    switch words[0] {
    case "bandwidth": return put(BitRate(words[1])?.bitsPerSecond, &terms.bandwidth)
    case "priority": return put(UInt8(digits: words[1]).flatMap { $0 <= 7 ? $0 : nil }, &terms.priority)
    case "until": return put(Int64(digits: words[1]), &terms.notAfter)
    case "window":
      guard let window = try? TicketIssue.window(words[1]) else { return false }
      terms.windows.append(window)
      return true
    default: return false
    }
  }

  private static func put<T>(_ value: T?, _ place: inout T) -> Bool {
    guard let value else { return false }
    place = value
    return true
  }
}
