import Dataplane
import Glibc
import Host
import Identity
import KeyAgreement
import Keying
import Logging
import PacketIO

/// Writes events to the log, those that others can cause as `LogLimit` lets it.
struct EventLog {
  private enum Entry {
    case event(Event)
    case keys(KeyAgentEvent)
    case reach(ReachFinding, peer: String)
  }

  private let logger: Logger
  private var limit: LogLimit<Entry>
  private var lastSummary: MonotonicTime

  init(_ logger: Logger, now: MonotonicTime) {
    self.logger = logger
    limit = LogLimit(now: now)
    lastSummary = now
  }

  mutating func log(_ event: Event, now: MonotonicTime) {
    guard let (holder, what) = EventLog.subject(of: event) else { return write(event, to: logger) }
    log(.event(event), about: what, of: holder, now: now)
  }

  /// Each of these comes once for each change of what it tells; of strangers there may be any number.
  mutating func log(_ event: KeyAgentEvent, now: MonotonicTime) {
    let (holder, what) = EventLog.subject(of: event)
    log(.keys(event), about: what, of: holder, now: now)
  }

  /// Who can reach whom.
  mutating func log(_ finding: ReachFinding, of peer: String, now: MonotonicTime) {
    log(.reach(finding, peer: peer), about: "reach", of: peer, now: now)
  }

  private mutating func log(_ entry: Entry, about what: String, of holder: String, now: MonotonicTime) {
    if limit.admit(entry, about: "\(what) of \(holder)", of: holder, now: now) { write(entry, to: logger) }
  }

  private func write(_ entry: Entry, to logger: Logger) {
    switch entry {
    case .event(let event): write(event, to: logger)
    case .keys(let event): write(event, to: logger)
    case .reach(let finding, let peer): logger.info("\(finding.text(peer: peer))", metadata: ["peer": "\(peer)"])
    }
  }

  private func write(_ event: KeyAgentEvent, to logger: Logger) {
    switch event {
    case .keying(.established(let peer, let session)):
      logger.notice(
        "keys are agreed upon",
        metadata: session.metadata(peer).merging(["took": "\(Int(session.duration * 1000)) ms"]) { $1 })
    case .keying(.rekeyed(let peer, let session)): logger.info("new keys", metadata: session.metadata(peer))
    case .keying(.failed(let peer, .lost, _)):
      logger.warning("the peer is lost: \(KeyingFailure.lost.remedy)", metadata: ["peer": "\(peer)"])
    case .keying(.failed(let peer, let why, let stranger)):
      var metadata: Logger.Metadata = ["peer": "\(peer)", "reason": "\(why.rawValue)"]
      metadata.merge(stranger?.metadata ?? [:]) { $1 }
      logger.warning("no keys: \(why.remedy)", metadata: metadata)
    case .keying(.stranger(let stranger, let partner?)):
      logger.warning(
        """
        the peer, or somebody in its name, asks for another gateway here: has it this gateway's GID, or with a \
        'secret' its name?
        """,
        metadata: stranger.metadata.merging(["peer": "\(partner)", "asks-for": "\(stranger.wanted)"]) { $1 })
    case .keying(.stranger(let stranger, nil)):
      logger.warning(
        "somebody who is no peer asks for a handshake: if it is one, list its GID",
        metadata: stranger.metadata.merging(["asks-for": "\(stranger.wanted)"]) { $1 })
    case .keying(.closed(let peer)): logger.notice("the peer has closed", metadata: ["peer": "\(peer)"])
    case .keying(.idle(let peer)):
      logger.notice("closed for want of traffic, which begins it again", metadata: ["peer": "\(peer)"])
    case .keying(.notified(let peer, let notice)):
      logger.warning("the peer has refused something", metadata: ["peer": "\(peer)", "it-says": "\(notice)"])
    case .keying(.relayNotified(let relay, let notice)):
      logger.warning("a relay lets something not pass", metadata: ["relay": "\(relay)", "it-says": "\(notice)"])
    case .notInForce(let peer, let error):
      logger.error("agreed keys cannot be put in force", metadata: ["peer": "\(peer)", "error": "\(error)"])
    }
  }

  /// Logs what was put off, once there is room for it. Call it every second or so.
  mutating func flush(now: MonotonicTime) {
    for (entry, leftOut) in limit.due(now: now) {
      var logger = logger
      if leftOut > 0 { logger[metadataKey: "left-out"] = "\(leftOut)" }
      write(entry, to: logger)
    }
    guard now.nanoseconds(since: lastSummary) >= 60_000_000_000 else { return }
    lastSummary = now
    let forgotten = limit.takeForgotten()
    if forgotten > 0 { logger.warning("events were not logged", metadata: ["events": "\(forgotten)"]) }
  }

  /// Who gives cause for an event, and for what; nil where that is nobody else.
  private static func subject(of event: Event) -> (holder: String, what: String)? {
    switch event {
    case .pathChanged(let peer, _), .pathSelected(let peer, _): (peer, "path")
    case .sequenceNumbersDisagree(let peer, _, let what): (peer, what.rawValue)
    case .addressesAgreed(let peer, _): (peer, "addresses")
    case .addressesNotInForce: ("this gateway", "addresses")
    // Of a peer, and not of each place where it says that it is.
    case .transportError(_, _, let peer, _), .transportRecovered(_, _, let peer, _): (peer ?? "several", "sending")
    // The firewall limits its own, and it is the operator who wants them.
    case .firewallLog: nil
    // Twice for a key at most, and never to be left out.
    case .sequenceNumbersRunningOut: nil
    case .started, .queuesNotSteered, .configurationApplied, .failed, .stopped: nil
    }
  }

  private static func subject(of event: KeyAgentEvent) -> (holder: String, what: String) {
    switch event {
    case .keying(.established(let peer, _)): (peer, "handshakes")
    case .keying(.rekeyed(let peer, _)): (peer, "new keys")
    case .keying(.failed(let peer, let why, _)): (peer, why.rawValue)
    // All of them are one, because they can have any number of addresses: so peers' lines have their room.
    case .keying(.stranger): ("strangers", "handshakes")
    case .keying(.closed(let peer)): (peer, "closing")
    case .keying(.idle(let peer)): (peer, "idle time")
    case .keying(.notified(let peer, _)): (peer, "notices")
    case .keying(.relayNotified(let relay, _)): ("\(relay)", "notices")
    case .notInForce(let peer, _): (peer, "keys not in force")
    }
  }

  private func write(_ event: Event, to logger: Logger) {
    switch event {
    case .started(let interface, let engine, let offloads, let refused):
      logger.info(
        "carrying packets",
        metadata: [
          "interface": "\(interface)", "engine": "\(engine?.rawValue ?? "none")", "offloads": .names(offloads),
        ])
      if !refused.isEmpty {
        logger.warning(
          "offloads failed their self-test and are off: less throughput",
          metadata: ["interface": "\(interface)", "offloads": .names(refused)])
      }
    case .configurationApplied(let peers):
      logger.debug("configuration is in force", metadata: ["peers": "\(peers)"])
    case .pathChanged(let peer, let path):
      logger.notice(
        "peer is at another address", metadata: ["peer": "\(peer)", "address": "\(path.endpoint)"])
    case .pathSelected(let peer, let change):
      var metadata: Logger.Metadata = [
        "peer": "\(peer)", "path": "\(change.name)", "address": "\(change.path.endpoint)",
        "why": "\(change.reason.rawValue)",
      ]
      if let previous = change.previous { metadata["before"] = "\(previous.endpoint)" }
      if let roundTrip = change.roundTrip { metadata["round-trip"] = "\(Int(roundTrip * 1e6)) µs" }
      if let loss = change.loss { metadata["loss"] = "\(Int((loss * 100).rounded())) %" }
      logger.notice("traffic takes another path", metadata: metadata)
    case .sequenceNumbersRunningOut(let peer, let spi, 0):
      logger.error(
        "sequence numbers are used up, nothing is sent: make a new key",
        metadata: ["peer": "\(peer)", "spi": spi.shown])
    case .sequenceNumbersRunningOut(let peer, let spi, let remaining):
      logger.warning(
        "sequence numbers are running out: make a new key",
        metadata: ["peer": "\(peer)", "spi": spi.shown, "remaining": "\(remaining)"])
    case .sequenceNumbersDisagree(let peer, let spi, let what):
      logger.warning("\(what.shown)", metadata: ["peer": "\(peer)", "spi": spi.shown])
    case .addressesAgreed(let peer, let agreement): write(agreement, with: peer, to: logger)
    case .addressesNotInForce(let error):
      logger.error("cannot put address spaces in force, and goes on trying", metadata: ["error": "\(error)"])
    case .queuesNotSteered(let error):
      logger.warning(
        "the kernel does not sort packets by worker, so workers hand over more", metadata: ["error": "\(error)"])
    case .failed(let error):
      logger.critical("no packets are carried any more", metadata: ["error": "\(error)"])
    case .stopped:
      logger.debug("dataplane has stopped")
    case .transportError(let transport, let path, let peer, let error):
      var metadata: Logger.Metadata = [
        "address": "\(path.endpoint)", "error": "\(error)", "transport": "\(transport)",
      ]
      if let peer { metadata["peer"] = "\(peer)" }
      logger.warning("cannot send: \(error.sendRemedy)", metadata: metadata)
    case .transportRecovered(let transport, let path, let peer, let untold):
      var metadata: Logger.Metadata = [
        "address": "\(path.endpoint)", "failures": "\(untold + 1)", "transport": "\(transport)",
      ]
      if let peer { metadata["peer"] = "\(peer)" }
      logger.notice("sending does not fail any more", metadata: metadata)
    case .firewallLog(let entry):
      logger.notice(entry.isAllowed ? "firewall allows" : "firewall refuses", metadata: entry.metadata)
    }
  }

  /// What two gateways have agreed upon is worth a line for each prefix, once they have.
  private func write(_ agreement: AddressAgreement, with peer: String, to logger: Logger) {
    guard agreement.isSettled else { return }
    let sides = [("our prefix", agreement.local), ("their prefix", agreement.remote)]
    for (side, spaces) in sides {
      for space in spaces {
        var metadata: Logger.Metadata = ["peer": "\(peer)", "prefix": "\(space.prefix)"]
        switch space.state {
        case .pending: break
        case .asIs: logger.info("\(side) is known as it is", metadata: metadata)
        case .known(let intermediate):
          metadata["known-as"] = "\(intermediate)"
          logger.notice("\(side) has an intermediate address space", metadata: metadata)
        case .withdrawn: logger.notice("\(side) was taken back", metadata: metadata)
        case .refused(let failure):
          metadata["reason"] = "\(failure)"
          logger.warning("\(side) has no address space and is not reachable", metadata: metadata)
        }
      }
    }
  }
}

extension FirewallLogEntry {
  fileprivate var metadata: Logger.Metadata {
    func end(_ address: IPAddress, _ port: UInt16) -> Logger.MetadataValue {
      port == 0 ? "\(address)" : "\(Endpoint(address: address, port: port))"
    }
    var metadata: Logger.Metadata = [
      "by": rule.map { "rule \($0)\(ruleName.isEmpty ? "" : " (\(ruleName))")" } ?? "\(ground)",
      "direction": "\(direction.name)", "protocol": "\(transport)", "from": end(source, sourcePort),
      "to": end(destination, destinationPort),
    ]
    if let peer { metadata["peer"] = "\(peer)" }
    if suppressed > 0 { metadata["suppressed"] = "\(suppressed)" }
    return metadata
  }
}

extension SequenceDisagreement {
  fileprivate var shown: String {
    switch self {
    case .peerWentBack:
      "the peer's sequence numbers went back, or somebody sends its old packets again: they are refused as replays"
    case .peerRefusesOurs:
      "the peer refuses our sequence numbers as replays; they go on above what it accepted: was the state directory "
        + "replaced by an older copy?"
    case .foundAgain: "the peer's sequence numbers had gone on by more than 2^32 unheard, and were found again"
    }
  }
}

extension UInt32 {
  fileprivate var shown: Logger.MetadataValue { "0x\(String(self, radix: 16))" }
}

extension Logger.MetadataValue {
  fileprivate static func names(_ offloads: TunOffloads) -> Logger.MetadataValue {
    offloads.isEmpty ? "none" : "\(offloads.names.joined(separator: " "))"
  }
}

extension SessionReport {
  fileprivate func metadata(_ peer: String) -> Logger.Metadata {
    [
      "peer": "\(peer)", "cipher": "\(suite.cipher.rawValue)", "group": "\(group)",
      "post-quantum": "\(isPostQuantum ? "yes" : awaitsPostQuantum ? "pending" : "no")",
    ]
  }
}

extension Stranger {
  /// A GID that was only said is called so.
  fileprivate var metadata: Logger.Metadata { ["says-it-is": "\(gid)", "address": "\(path.endpoint)"] }
}

extension SystemError {
  /// What to look at where something cannot be sent.
  fileprivate var sendRemedy: String {
    switch errno {
    case ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN: "has this machine a route to that address, and is its link up?"
    case EPERM, EACCES: "does a packet filter of this machine refuse it?"
    case ECONNREFUSED: "nobody listens there: does the gateway run, and is that its port?"
    case EAFNOSUPPORT, EADDRNOTAVAIL: "does 'listen' have an address of that family, and has this machine one?"
    default: "does the gateway there run, and can it be reached?"
    }
  }
}

extension KeyingFailure {
  /// What to look at.
  fileprivate var remedy: Logger.Message {
    switch self {
    case .noAnswer:
      "nobody answers who has the peer's key: does it run, can it be reached, and does it list this gateway's GID?"
    case .otherKey:
      "somebody with another key is there: has the peer a new 'gid', or another 'secret' or name than here?"
    case .nothingInCommon: "no suite or group in common: compare 'cipher' and 'implicit-iv' on both sides"
    case .notAuthentic: "somebody answers in the peer's name and is not the peer"
    case .notPostQuantum:
      "the peer takes no part in post-quantum keys, required here: set 'post-quantum: preferred' on either side"
    case .tooOften: "the peer has made keys too often: it can again within two minutes"
    case .lost: "nothing is heard of it, and it answers no handshake: does it run, and can it be reached?"
    case .expired: "the keys have expired, and the peer does not answer"
    }
  }
}
