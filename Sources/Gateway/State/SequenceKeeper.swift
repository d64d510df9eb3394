public import Dataplane
public import Host
import Logging
public import PacketIO

/// Keeps a nonce from being used twice under keys that outlive the process (invariant 1).
///
/// Before a sequence number is leased to the dataplane, a record on stable storage says that it may have been
/// used; a restart begins above the record. The record runs ahead by a block, so that writing is rare; a clean
/// stop takes the rest of the block back. For receiving, the highest accepted number is recorded once a second, so
/// that a restart does not open the door for old packets; the machine's ledger has it at once.
///
/// A key whose numbers may have been used where these records do not know of it is refused: its record is gone, or is a
/// copy of one that may be newer. Where the machine's ledger knows the numbers, they go on above.
///
/// One gateway owns a keeper and calls it from one task.
public struct SequenceKeeper {
  /// The first block of a run. A crash loses it, so it is small: 1024 of them exhaust 32 bits, and a receiver that
  /// heard nothing of them would lose track of extended numbers (RFC 4303 appendix A2.2).
  static let firstBlock: UInt64 = 1 << 22
  /// Later blocks with extended sequence numbers; without, the first size stays.
  static let extendedBlock: UInt64 = 1 << 28

  private struct Sender {
    var peer: String
    var keyName: String
    /// With its lease and first sequence number: what the dataplane was given.
    var association: SecurityAssociationConfiguration
    let lease: SequenceLease
    /// The size of the block that is in use.
    var block: UInt64
    /// What the record says.
    var recorded: UInt64
    /// False: the key had never been used before, and there is no record yet.
    var hasRecord: Bool
    /// What the machine knows of the key.
    var row: KeyLedger.Row?
  }

  private struct Receiver {
    var peer: String
    var association: SecurityAssociationConfiguration
    /// What the machine knows of the key.
    var row: KeyLedger.Row?
  }

  private struct Prepared {
    var senders: [Fingerprint: Sender] = [:]
    var receivers: [Fingerprint: Receiver] = [:]
    var refusals: [Refusal] = []
  }

  /// An association that cannot be used, though the plan has it: its numbers are used up, or nobody knows which of them
  /// were used. The peer's other associations and all other peers are not concerned.
  public struct Refusal: Sendable, Equatable {
    public let peer: String
    /// What is wrong, and what to do about it.
    public let reason: OperatorError
  }

  private let directory: StateDirectory
  /// Sibling directories belong to other gateways, which may not share a key with this one.
  private let looksAtSiblings: Bool
  private let ledger: KeyLedger?
  private var copied: [Fingerprint: StateDirectory.Copy]
  private var current = Prepared()
  private var prepared: Prepared?
  private var received: StateDirectory.Received
  private var receivedIsWritten = true

  /// - Parameter ledger: nil: the machine knows nothing.
  public init(_ directory: StateDirectory, looksAtSiblings: Bool, ledger: KeyLedger? = nil) throws {
    self.directory = directory
    self.looksAtSiblings = looksAtSiblings
    self.ledger = ledger
    copied = directory.copied
    received = try directory.received()
  }

  /// For a plan's manual keys; nil where it has none: then there is nothing to be recorded, and no directory is made.
  /// - Throws: `OperatorError`, `SystemError`.
  init?(of plan: GatewayPlan, _ logger: Logger) throws {
    guard plan.hasManualKeys else { return nil }
    let directory = try StateDirectory(plan.state)
    do {
      try self.init(directory, looksAtSiblings: plan.hasSiblings, ledger: SequenceKeeper.ledger(logger))
    } catch {
      directory.removeIfUnused()
      throw error
    }
  }

  /// What this machine knows of keys; nil, with a word of it, where it cannot be kept.
  private static func ledger(_ logger: Logger) -> KeyLedger? {
    do {
      return try KeyLedger()
    } catch {
      logger.warning(
        "numbers of keys are kept in the state directory alone, so a loss of it goes unnoticed",
        metadata: ["error": "\(error)"])
      return nil
    }
  }

  /// What of the configuration prepared last, or in force, cannot be used.
  public var refusals: [Refusal] { (prepared ?? current).refusals }

  /// Files of keys whose records were older than what the machine knows, since the last call: numbers go on above.
  public mutating func takeOutdated() -> [String] {
    defer { outdated = [] }
    return outdated
  }
  private var outdated: [String] = []

  // MARK: Before and after a configuration takes effect

  /// Adds leases and first sequence numbers to what a plan asks for. Associations that stay the same keep theirs.
  ///
  /// New leases are empty and allow nothing before `commit`, unless `reserve` is true: then a block is reserved at
  /// once, so that the first packets find numbers.
  /// Associations whose keys are used up, in use elsewhere or without a readable record are left out (`refusals`).
  ///
  /// - Throws: `OperatorError` where nothing could be sent to any peer, `SystemError`.
  public mutating func prepare(_ plan: GatewayPlan, reserve: Bool) throws -> Configuration {
    prepared = Prepared()
    do {
      var leased = plan
      for index in leased.peers.indices { try lease(&leased.peers[index], reserve: reserve) }
      let sendsToNobody = leased.peers.allSatisfy { $0.configuration.outbound == nil && $0.keys == nil }
      if sendsToNobody, let refusal = refusals.first { throw refusal.reason }
      return leased.configuration
    } catch {
      rollBack()
      throw error
    }
  }

  private mutating func lease(_ peer: inout PlannedPeer, reserve: Bool) throws {
    let (name, sendKey, receiveKey) = (peer.configuration.name, peer.sendKeyName, peer.receiveKeyName)
    if let outbound = peer.configuration.outbound {
      let key = Fingerprint(outbound.key)
      var sender = accept(Result { try self.sender(outbound, key, peer: name, keyName: sendKey) }, peer: name)
      if reserve, var new = sender, new.lease !== current.senders[key]?.lease {
        try extend(&new, key)
        sender = new
      }
      // With what it may use; nil when it may use nothing.
      prepared?.senders[key] = sender
      peer.configuration.outbound = sender?.association
    }
    peer.configuration.inbound = peer.configuration.inbound.compactMap { inbound in
      let key = Fingerprint(inbound.key)
      let found = Result { try self.receiver(inbound, key, peer: name, keyName: receiveKey) }
      let receiver = accept(found, peer: name)
      prepared?.receivers[key] = receiver
      return receiver?.association
    }
  }

  /// What was found; nil, and a refusal, when it was not.
  private mutating func accept<Value>(_ found: Result<Value, any Error>, peer: String) -> Value? {
    switch found {
    case .success(let value): return value
    case .failure(let error):
      let reason =
        error as? OperatorError
        ?? OperatorError("\(error)", remedy: "see that the state directory \(directory.path) can be read")
      // Both directions may have one reason.
      let refusal = Refusal(peer: peer, reason: reason)
      if prepared?.refusals.contains(refusal) == false { prepared?.refusals.append(refusal) }
      return nil
    }
  }

  /// The prepared configuration is in force: makes sure that each of its leases allows something.
  /// - Throws: `SystemError` where that cannot be recorded; those leases stay empty.
  public mutating func commit() throws {
    guard let plan = prepared else { return }
    prepared = nil
    let before = current
    current = plan
    release(before)
    for (key, var sender) in plan.senders where sender.lease.limit < sender.association.firstSequence {
      try extend(&sender, key)
      current.senders[key] = sender
    }
  }

  /// The prepared configuration was refused; what was in force before still is.
  public mutating func rollBack() {
    guard let plan = prepared else { return }
    prepared = nil
    // Numbers reserved for what never came into force are skipped, not used by two.
    for (key, sender) in plan.senders {
      if let recorded = current.senders[key]?.recorded, sender.recorded > recorded {
        current.senders[key]?.recorded = sender.recorded
      }
    }
    release(plan)
  }

  /// Gives back keys that are not in force.
  private func release(_ plan: Prepared) {
    guard let ledger else { return }
    for (key, sender) in plan.senders where current.senders[key] == nil { sender.row.map(ledger.release) }
    for (key, receiver) in plan.receivers where current.receivers[key] == nil { receiver.row.map(ledger.release) }
  }

  /// The start has failed, and the dataplane has stopped if there was one: gives back what was reserved for it.
  public mutating func abandon() {
    defer { directory.removeIfUnused() }
    guard let plan = prepared else { return }
    prepared = nil
    for (key, sender) in plan.senders where sender.hasRecord {
      let used = max(sender.lease.used, sender.association.firstSequence - 1)
      sender.row?.set(used)
      // A record that stays too high skips numbers, and no more.
      if used > 0 {
        try? directory.setSentLimit(used, key)
      } else {
        try? directory.removeSentLimit(key)
        try? KeyMark(key, in: sender.keyName).remove()
      }
    }
    release(plan)
  }

  private mutating func sender(
    _ association: SecurityAssociationConfiguration, _ key: Fingerprint, peer: String, keyName: String
  ) throws -> Sender {
    let known = current.senders[key]
    if var known, known.association.isSameAssociation(as: association) {
      known.peer = peer
      known.keyName = keyName
      return known
    }
    let onDisk = try known?.recorded ?? directory.sentLimit(key)
    if onDisk == nil, looksAtSiblings, let other = directory.foreignSentRecord(key) {
      throw OperatorError(
        "the key in \(keyName) was used by another gateway (\(other))",
        remedy: "make a new key, or move that record to \(directory.path) when the gateway was renamed")
    }
    let row = try ledger?.claim(key, .sending, keyName: keyName)
    let inMemory = row?.number ?? 0
    if known == nil {
      try checkCopy(of: key, keyName, isKnownHere: inMemory > 0)
      if onDisk == nil, inMemory == 0, KeyMark(key, in: keyName).isSet {
        throw OperatorError(
          "the key in \(keyName) was used before, and its record in \(directory.path) is gone",
          remedy: SequenceKeeper.newKeys)
      }
      if inMemory > onDisk ?? 0 { outdated.append(keyName) }
    }
    let recorded = max(onDisk ?? 0, inMemory)
    let first = recorded &+ 1
    guard recorded < association.lastSequence else { throw SequenceKeeper.usedUp(keyName) }
    let lease = SequenceLease(limit: first - 1)
    var leased = association
    leased.lease = lease
    leased.firstSequence = first
    return Sender(
      peer: peer, keyName: keyName, association: leased, lease: lease, block: SequenceKeeper.firstBlock,
      recorded: recorded, hasRecord: onDisk != nil, row: row)
  }

  private static let newKeys = "make a new one with 'culvert keygen --cipher', here and at the peer"

  /// A record that is a copy says nothing, unless the machine itself knows that nothing came after it.
  private func checkCopy(of key: Fingerprint, _ keyName: String, isKnownHere: Bool) throws(OperatorError) {
    guard let copy = copied[key], copy == .foreign || !isKnownHere else { return }
    let how = copy == .foreign ? "was made by another machine" : "is a copy, and newer ones may have been used"
    throw OperatorError(
      "the key in \(keyName) may have been used elsewhere: its record in \(directory.path) \(how)",
      remedy: SequenceKeeper.newKeys + "; or remove \(directory.copiedFile) when nothing else used the key since")
  }

  private mutating func receiver(
    _ association: SecurityAssociationConfiguration, _ key: Fingerprint, peer: String, keyName: String
  ) throws -> Receiver {
    let known = current.receivers[key]
    let row = try known?.row ?? ledger?.claim(key, .receiving, keyName: keyName)
    let inMemory = known == nil ? row?.number ?? 0 : 0
    if known == nil { try checkCopy(of: key, keyName, isKnownHere: inMemory > 0) }
    // One that runs on keeps its window, whatever is said here of its start.
    guard let onDisk = received.numbers[key] ?? (received.isComplete || inMemory > 0 ? 0 : nil) else {
      throw OperatorError(
        "nobody knows what was received under the key in \(keyName): a record of it is damaged",
        remedy: "make a new one, here and at the peer, then remove \(directory.damagedReceived)")
    }
    let highest = max(onDisk, min(inMemory, association.lastSequence - 1))
    guard highest < association.lastSequence else {
      throw OperatorError(
        "the peer has used the last number of the key in \(keyName)",
        remedy: "make a new one with 'culvert keygen --cipher', here and at the peer, or use extended sequence numbers")
    }
    if highest > onDisk {
      received.numbers[key] = highest
      receivedIsWritten = false
    }
    row?.mirror.raise(to: highest)
    var leased = association
    leased.firstSequence = highest + 1
    let goesOn = known.map { $0.peer == peer && $0.association.isSameAssociation(as: association) } ?? false
    leased.lease = goesOn ? known?.association.lease : SequenceLease(limit: .max, mirror: row?.mirror)
    return Receiver(peer: peer, association: leased, row: row)
  }

  private static func usedUp(_ keyName: String) -> OperatorError {
    OperatorError(
      "the key in \(keyName) is used up",
      remedy: "make a new one with 'culvert keygen --cipher', here and at the peer, or use extended sequence numbers")
  }

  // MARK: While traffic flows

  /// How a lease stands.
  public struct Progress: Equatable, Sendable {
    /// Packets were sealed or accepted since the last call.
    public var isActive = false
    /// What could not be recorded, at most one error for each kind of record.
    public var errors: [SystemError] = []

    mutating func merge(_ other: Progress) {
      isActive = isActive || other.isActive
      errors += other.errors
    }
  }

  private var lastUsed: [Fingerprint: UInt64] = [:]

  /// Raises each lease of which less than half is left. Call several times a second: leases tell themselves how far
  /// they are used, so nobody is asked.
  public mutating func raiseLeases() -> Progress {
    var progress = Progress()
    for (key, var sender) in current.senders {
      let sequence = max(sender.lease.used, sender.association.firstSequence - 1)
      if lastUsed.updateValue(sequence, forKey: key) != sequence { progress.isActive = true }
      let lease = sender.lease
      guard lease.limit < sender.association.lastSequence, lease.limit &- min(sequence, lease.limit) < sender.block / 2
      else { continue }
      if sender.association.extendedSequenceNumbers, sequence >= sender.association.firstSequence {
        sender.block = SequenceKeeper.extendedBlock
      }
      do {
        try extend(&sender, key)
        current.senders[key] = sender
      } catch {
        if progress.errors.isEmpty { progress.errors.append(error) }
      }
    }
    return progress
  }

  /// Records the highest number accepted under each key, where it has changed. Call once a second.
  public mutating func recordReceived() -> Progress {
    var progress = Progress()
    for (key, receiver) in current.receivers {
      let sequence = receiver.association.lease?.used ?? 0
      if sequence > received.numbers[key] ?? 0 {
        received.numbers[key] = sequence
        receivedIsWritten = false
        progress.isActive = true
      }
    }
    let stillCopied = copied.filter { current.receivers[$0.key] == nil }
    guard !receivedIsWritten || stillCopied.count < copied.count else { return progress }
    do {
      try directory.setReceived(received.numbers)
      receivedIsWritten = true
      if stillCopied.count < copied.count { try directory.acknowledge(stillCopied) }
      copied = stillCopied
    } catch {
      progress.errors.append(error)
    }
    return progress
  }

  /// Traffic has ended, and the dataplane has stopped: records the exact numbers, so that nothing is skipped at the next
  /// start.
  public mutating func finish() -> Progress {
    var progress = recordReceived()
    for (key, sender) in current.senders where sender.hasRecord {
      let sequence = sender.lease.used
      guard sequence <= sender.lease.limit else { continue }
      let used = max(sequence, sender.association.firstSequence - 1)
      sender.row?.set(used)
      if used == 0 { try? KeyMark(key, in: sender.keyName).remove() }
      do {
        try directory.setSentLimit(used, key)
      } catch {
        progress.errors.append(error)
      }
    }
    let before = current
    current = Prepared()
    release(before)
    return progress
  }

  /// Records the next block, then leases it: never the other way round.
  private mutating func extend(_ sender: inout Sender, _ key: Fingerprint) throws(SystemError) {
    let last = sender.association.lastSequence
    // The peer may have had it skip numbers that were not leased.
    let (sum, overflow) = max(sender.lease.limit, sender.lease.used).addingReportingOverflow(sender.block)
    let limit = max(overflow ? last : min(sum, last), sender.recorded)
    if limit > sender.recorded || !sender.hasRecord {
      try directory.setSentLimit(limit, key)
      // Not on every file system, and not for whoever may only read it.
      if !sender.hasRecord { try? KeyMark(key, in: sender.keyName).set() }
    }
    sender.row?.set(limit)
    if copied.removeValue(forKey: key) != nil { try directory.acknowledge(copied) }
    sender.recorded = limit
    sender.hasRecord = true
    sender.lease.raise(to: min(limit, last))
  }
}

extension SecurityAssociationConfiguration {
  /// The last number that may ever be used: 32 or 64 bits, and never zero again (RFC 4303 §3.3.3).
  var lastSequence: UInt64 { extendedSequenceNumbers ? .max - 1 : UInt64(UInt32.max) }
}
