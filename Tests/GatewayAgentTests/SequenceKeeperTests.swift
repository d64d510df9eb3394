import Foundation
import Host
import PacketIO
import Testing

@testable import Dataplane
@testable import Gateway

/// No sequence number is used twice under a key, whatever happens to the process (invariant 1).
@Suite struct SequenceKeeperTests {
  /// One peer, manual keys.
  static func text(spi: Int = 0x1001, key: String = "ab.key", extended: Bool = true, peer: String = "beta") -> String {
    """
    name: alpha
    state: state
    peers:
      - name: \(peer)
        prefixes: [10.2.0.0/24]
        send:    { spi: \(spi), key: \(key) }
        receive: { spi: 0x1002, key: ba.key }
        extended-sequence-numbers: \(extended)
    """
  }

  struct Run {
    let workshop: Workshop
    var keeper: SequenceKeeper
    var plan: GatewayPlan
    var configuration: Configuration

    /// Starts as a gateway does.
    /// - Parameter ledger: the machine's, by its name in the workshop.
    init(
      _ workshop: Workshop, _ text: String = SequenceKeeperTests.text(), siblings: Bool = false, ledger: String? = nil
    ) throws {
      self.workshop = workshop
      plan = try workshop.parse(text)
      keeper = try SequenceKeeper(
        try StateDirectory(plan.state), looksAtSiblings: siblings,
        ledger: try ledger.map { try KeyLedger(workshop.file($0)) })
      configuration = try keeper.prepare(plan, reserve: false)
      try keeper.commit()
    }

    var outbound: SecurityAssociationConfiguration { configuration.peers[0].outbound! }
    var first: UInt64 { outbound.firstSequence }
    var limit: UInt64 { outbound.lease!.limit }

    /// Workers have used so many numbers.
    func note(_ sent: UInt64, _ received: UInt64) {
      outbound.lease!.note(used: sent)
      configuration.peers[0].inbound[0].lease!.note(used: received)
    }

    mutating func raiseLeases(sent: UInt64) -> SequenceKeeper.Progress {
      note(sent, 0)
      return keeper.raiseLeases()
    }

    mutating func recordReceived(sent: UInt64, received: UInt64) -> SequenceKeeper.Progress {
      note(sent, received)
      return keeper.recordReceived()
    }

    mutating func finish(sent: UInt64, received: UInt64 = 0) -> SequenceKeeper.Progress {
      note(sent, received)
      return keeper.finish()
    }

    /// What the record says.
    func recorded() throws -> UInt64? {
      let name = "state/\(Fingerprint(outbound.key)).sent"
      guard FileManager.default.fileExists(atPath: workshop.file(name)) else { return nil }
      return UInt64(try workshop.read(name).split(separator: "\n").last ?? "")
    }
  }

  static func workshop() throws -> Workshop {
    let workshop = try Workshop()
    try workshop.usualKeys()
    return workshop
  }

  @Test func theFirstRunBeginsAtOneWithABlockOnRecord() throws {
    let workshop = try Self.workshop()
    let run = try Run(workshop)
    #expect(run.first == 1 && run.limit == 1 << 22)
    #expect(try run.recorded() == 1 << 22)
    #expect(try workshop.mode("state") == 0o700)
    #expect(try workshop.mode("state/\(Fingerprint(run.outbound.key)).sent") == 0o600)
  }

  @Test func nothingIsLeasedNorWrittenBeforeTheStartHasSucceeded() throws {
    let workshop = try Self.workshop()
    let plan = try workshop.parse(Self.text())
    let directory = try StateDirectory(plan.state)
    var keeper = try SequenceKeeper(directory, looksAtSiblings: false)
    let configuration = try keeper.prepare(plan, reserve: false)
    #expect(configuration.peers[0].outbound?.lease?.limit == 0)
    #expect(try workshop.names().contains("state"))
    // As after a start that failed.
    keeper.rollBack()
    directory.removeIfUnused()
    #expect(try !workshop.names().contains("state"))
  }

  @Test func aCleanStopSkipsNothingAndACrashSkipsTheBlock() throws {
    let workshop = try Self.workshop()
    do {
      var run = try Run(workshop)
      #expect(run.finish(sent: 777).errors.isEmpty)
    }
    do {
      let run = try Run(workshop)
      #expect(run.first == 778 && run.limit == 777 + 1 << 22)
    }
    let run = try Run(workshop)
    #expect(run.first == 778 + 1 << 22)
  }

  @Test func leasesAreRaisedInTimeAndAfterTheRecord() throws {
    let workshop = try Self.workshop()
    var run = try Run(workshop)
    let half: UInt64 = 1 << 21
    #expect(run.raiseLeases(sent: half) == SequenceKeeper.Progress(isActive: true))
    #expect(run.limit == 1 << 22)
    #expect(run.raiseLeases(sent: half) == SequenceKeeper.Progress(isActive: false))
    #expect(run.raiseLeases(sent: half + 1).isActive)
    #expect(run.limit == (1 << 22) + (1 << 28))
    #expect(try run.recorded() == run.limit)
    // Half of the large block is enough again.
    #expect(run.raiseLeases(sent: 1 << 27).isActive)
    #expect(run.limit == (1 << 22) + (1 << 28))
  }

  @Test func whatCannotBeRecordedIsNotLeased() throws {
    let workshop = try Self.workshop()
    var run = try Run(workshop)
    let limit = run.limit
    // No new file can be made where the directory is gone; its lock and path stay.
    try FileManager.default.removeItem(atPath: workshop.file("state"))
    let progress = run.raiseLeases(sent: limit - 1)
    #expect(progress.errors.count == 1)
    #expect(run.limit == limit)
    // The next attempt succeeds as soon as it can.
    try FileManager.default.createDirectory(atPath: workshop.file("state"), withIntermediateDirectories: false)
    #expect(run.raiseLeases(sent: limit - 1).errors.isEmpty)
    #expect(run.limit > limit)
  }

  @Test func thirtyTwoBitsEndWithAClearError() throws {
    let workshop = try Self.workshop()
    let text = Self.text(extended: false)
    let last = UInt64(UInt32.max)
    do {
      var run = try Run(workshop, text)
      _ = run.finish(sent: 5)
      try workshop.write("state/\(Fingerprint(run.outbound.key)).sent", "\(last - 10)\n")
    }
    do {
      var run = try Run(workshop, text)
      #expect(run.first == last - 9 && run.limit == last)
      #expect(run.raiseLeases(sent: last).errors.isEmpty)
      #expect(run.limit == last)
      _ = run.finish(sent: last)
    }
    let error = #expect(throws: OperatorError.self) { try Run(workshop, text) }
    #expect(
      error?.description
        == "the key in \(workshop.file("ab.key")) is used up; make a new one with 'culvert keygen --cipher', here and "
        + "at the peer, or use extended sequence numbers")
    // 64 bits of numbers go on from there.
    #expect(try Run(workshop, Self.text(extended: true)).first == last + 1)
  }

  @Test func damagedRecordsAreRefusedAndNotGuessed() throws {
    for content in ["", "# x\n", "12 13\n", "x\n", "1\n2\n", "-1\n", "18446744073709551616\n"] {
      let workshop = try Self.workshop()
      var record = ""
      do {
        let run = try Run(workshop)
        record = "state/\(Fingerprint(run.outbound.key)).sent"
      }
      try workshop.write(record, content)
      let error = #expect(throws: OperatorError.self) { try Run(workshop) }
      #expect(error?.problem == "the record of sequence numbers \(workshop.file(record)) is damaged")
    }
  }

  /// Two peers with manual keys.
  private static let twoPeers =
    text(extended: false) + """

        - name: gamma
          prefixes: [10.3.0.0/24]
          cipher: chacha20-poly1305
          send:    { spi: 0x1003, key: ac.key }
          receive: { spi: 0x1004, key: ca.key }
      """

  /// One packet with the last number of all, of a peer whose numbers have 32 bits, and the other peer goes on: at a
  /// reload, and at the next start.
  @Test func aPeerAtTheEndOfItsNumbersStopsNobodyElse() throws {
    let workshop = try Self.workshop()
    do {
      var run = try Run(workshop, Self.twoPeers)
      #expect(run.keeper.refusals.isEmpty)
      _ = run.recordReceived(sent: 1, received: UInt64(UInt32.max))
      let again = try run.keeper.prepare(try workshop.parse(Self.twoPeers), reserve: true)
      try run.keeper.commit()
      #expect(again.peers[0].inbound.isEmpty && again.peers[0].outbound != nil)
      #expect(again.peers[1].inbound.count == 1 && again.peers[1].outbound != nil)
    }
    let run = try Run(workshop, Self.twoPeers)
    #expect(run.configuration.peers.map(\.inbound.count) == [0, 1])
    let refusal = try #require(run.keeper.refusals.first)
    #expect(run.keeper.refusals.count == 1 && refusal.peer == "beta")
    #expect(refusal.reason.problem == "the peer has used the last number of the key in \(workshop.file("ba.key"))")
  }

  @Test func aDamagedRecordStopsItsOwnKeyOnly() throws {
    let workshop = try Self.workshop()
    var record = ""
    do {
      let run = try Run(workshop, Self.twoPeers)
      record = "state/\(Fingerprint(run.outbound.key)).sent"
    }
    try workshop.write(record, "x\n")
    let run = try Run(workshop, Self.twoPeers)
    #expect(run.configuration.peers.map { $0.outbound == nil } == [true, false])
    #expect(run.configuration.peers.map(\.inbound.count) == [1, 1])
    let problems = run.keeper.refusals.map(\.reason.problem)
    #expect(problems == ["the record of sequence numbers \(workshop.file(record)) is damaged"])
  }

  /// Who agrees upon keys needs no record, so a damaged one of somebody else's manual key stops nobody.
  @Test func agreedKeysNeedNoRecords() throws {
    let workshop = try Self.workshop()
    let text =
      Self.text() + """

          - { name: gamma, prefixes: [10.3.0.0/24], secret: alpha-delta.secret }
        """
    var record = ""
    do {
      let run = try Run(workshop, text)
      record = "state/\(Fingerprint(run.outbound.key)).sent"
      let names = try FileManager.default.contentsOfDirectory(atPath: workshop.file("state"))
      #expect(names.filter { $0.hasSuffix(".sent") }.count == 1)
    }
    try workshop.write(record, "x\n")
    let run = try Run(workshop, text)
    #expect(run.keeper.refusals.map(\.peer) == ["beta"])
    #expect(run.configuration.peers.map(\.negotiatesKeys) == [false, true])
  }

  /// Of what is not on record any more nobody knows whether it was received: not now, and not after another start.
  @Test func aDamagedRecordOfWhatWasReceivedIsRemembered() throws {
    let workshop = try Self.workshop()
    var kept = ""
    do {
      var run = try Run(workshop, Self.twoPeers)
      _ = run.recordReceived(sent: 1, received: 77)
      kept = "\(Fingerprint(run.configuration.peers[0].inbound[0].key)) 77\n"
    }
    try workshop.write("state/received", kept + "3f 1")
    for _ in 0..<2 {
      let run = try Run(workshop, Self.twoPeers)
      #expect(run.configuration.peers.map(\.inbound.count) == [1, 0])
      #expect(run.configuration.peers[0].inbound[0].firstSequence == 78)
      #expect(run.keeper.refusals.map(\.peer) == ["gamma"])
    }
    try FileManager.default.removeItem(atPath: workshop.file("state/received.damaged"))
    let run = try Run(workshop, Self.twoPeers)
    #expect(run.keeper.refusals.isEmpty)
  }

  /// A start, and a start after an end, reserves before there is anything to be sealed: no packet finds no number.
  @Test func aStartHasNumbersForItsFirstPackets() throws {
    let workshop = try Self.workshop()
    let plan = try workshop.parse(Self.text())
    var next: UInt64 = 1
    for _ in 0..<3 {
      let directory = try StateDirectory(plan.state)
      var keeper = try SequenceKeeper(directory, looksAtSiblings: false)
      let outbound = try #require(try keeper.prepare(plan, reserve: true).peers[0].outbound)
      let lease = try #require(outbound.lease)
      #expect(outbound.firstSequence == next && lease.limit >= next + 1000)
      // Each is on disk before it is used.
      let onDisk = try directory.sentLimit(Fingerprint(outbound.key))
      #expect(onDisk == lease.limit)
      try keeper.commit()
      lease.note(used: next + 4)
      _ = keeper.finish()
      next += 5
    }
  }

  @Test func aFailedStartGivesBackWhatWasReserved() throws {
    let workshop = try Self.workshop()
    let plan = try workshop.parse(Self.text())
    do {
      let directory = try StateDirectory(plan.state)
      var keeper = try SequenceKeeper(directory, looksAtSiblings: false)
      let configuration = try keeper.prepare(plan, reserve: true)
      #expect(configuration.peers[0].outbound?.lease?.limit == 1 << 22)
      keeper.abandon()
      directory.removeIfUnused()
    }
    #expect(try !workshop.names().contains("state"))
    // Something was sealed before it failed.
    do {
      var keeper = try SequenceKeeper(try StateDirectory(plan.state), looksAtSiblings: false)
      let configuration = try keeper.prepare(plan, reserve: true)
      configuration.peers[0].outbound?.lease?.note(used: 3)
      keeper.abandon()
    }
    #expect(try Run(workshop).first == 4)
  }

  @Test func aDirectoryThatOthersCanWriteToIsRefused() throws {
    let workshop = try Self.workshop()
    do { _ = try Run(workshop) }
    for mode in [0o720, 0o702, 0o777] {
      try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: workshop.file("state"))
      let error = #expect(throws: OperatorError.self) { try Run(workshop) }
      #expect(error?.problem == "others can write to the state directory \(workshop.file("state"))")
    }
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: workshop.file("state"))
    do { _ = try Run(workshop) }
    try FileManager.default.createSymbolicLink(
      atPath: workshop.file("link"), withDestinationPath: workshop.file("state"))
    let linked = Self.text().replacing("state: state", with: "state: link")
    let error = #expect(throws: OperatorError.self) { try Run(workshop, linked) }
    #expect(error?.problem == "state directory \(workshop.file("link")) is a symbolic link")
  }

  /// Who can write above can put another directory in its place; in /tmp, others cannot rename it.
  @Test func aDirectoryThatOthersCanReplaceIsRefused() throws {
    let workshop = try Self.workshop()
    let text = Self.text().replacing("state: state", with: "state: open/inner/state")
    do { _ = try Run(workshop, text) }
    try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: workshop.file("open"))
    let error = #expect(throws: OperatorError.self) { try Run(workshop, text) }
    #expect(error?.problem.hasPrefix("others can write to \(workshop.file("open")), and so replace") == true)
    #expect(throws: OperatorError.self) { try StateDirectory.check(workshop.file("open/inner/state")) }
    try FileManager.default.setAttributes([.posixPermissions: 0o1777], ofItemAtPath: workshop.file("open"))
    #expect(try Run(workshop, text).first > 1)
  }

  @Test func aLookChangesNothing() throws {
    let workshop = try Self.workshop()
    let plan = try workshop.parse(Self.text())
    try StateDirectory.check(plan.state)
    #expect(try !workshop.names().contains("state"))
    do {
      let run = try Run(workshop)
      // Also while a gateway has it.
      try StateDirectory.check(plan.state)
      try workshop.write("state/\(Fingerprint(run.outbound.key)).sent", "x\n")
    }
    #expect(throws: OperatorError.self) { try StateDirectory.check(plan.state) }
  }

  /// Without records of what was received nothing is accepted, but the peer can be sent to.
  @Test func recordsOfWhatWasReceivedThatAreGarbageKeepNobodyFromSending() throws {
    let workshop = try Self.workshop()
    do {
      var run = try Run(workshop)
      _ = run.recordReceived(sent: 1, received: 77)
    }
    try workshop.write("state/received", "\u{1}\u{2} garbage\n")
    let run = try Run(workshop)
    #expect(run.configuration.peers[0].inbound.isEmpty && run.configuration.peers[0].outbound != nil)
    #expect(run.keeper.refusals.map(\.peer) == ["beta"])
  }

  /// A record that is a link is somebody's trap.
  @Test func recordsAreNoLinks() throws {
    let workshop = try Self.workshop()
    var record = ""
    do {
      let run = try Run(workshop)
      record = "state/\(Fingerprint(run.outbound.key)).sent"
    }
    try workshop.write("elsewhere", "0\n")
    try FileManager.default.removeItem(atPath: workshop.file(record))
    try FileManager.default.createSymbolicLink(
      atPath: workshop.file(record), withDestinationPath: workshop.file("elsewhere"))
    #expect(throws: OperatorError.self) { try Run(workshop) }
  }

  @Test func whatWritersLeftIsRemoved() throws {
    let workshop = try Self.workshop()
    do { _ = try Run(workshop) }
    try workshop.write("state/received.new-4711", "half")
    try workshop.write("state/notes.new-x", "the operator's")
    do { _ = try Run(workshop) }
    let names = try FileManager.default.contentsOfDirectory(atPath: workshop.file("state"))
    #expect(!names.contains("received.new-4711") && names.contains("notes.new-x"))
  }

  @Test func theDirectoryHasOneUserAtATime() throws {
    let workshop = try Self.workshop()
    do {
      let run = try Run(workshop)
      let error = #expect(throws: OperatorError.self) { try Run(workshop) }
      #expect(error?.problem == "state directory \(workshop.file("state")) is in use by another gateway")
      withExtendedLifetime(run) {}
    }
    _ = try Run(workshop)
  }

  @Test func aKeyThatASiblingUsedIsRefused() throws {
    let workshop = try Self.workshop()
    let key: Fingerprint
    do {
      var run = try Run(workshop, Self.text().replacing("state: state", with: "state: states/old"), siblings: true)
      key = Fingerprint(run.outbound.key)
      _ = run.finish(sent: 0)
    }
    let text = Self.text().replacing("state: state", with: "state: states/new")
    // Prepared but never used: free for others.
    do { _ = try Run(workshop, text, siblings: true) }
    try FileManager.default.removeItem(atPath: workshop.file("states/new"))

    try workshop.write("states/old/\(key).sent", "5\n")
    let error = #expect(throws: OperatorError.self) { try Run(workshop, text, siblings: true) }
    #expect(
      error?.problem
        == "the key in \(workshop.file("ab.key")) was used by another gateway (\(workshop.file("states/old/\(key).sent")))"
    )
    // Nor where the operator chose the directory: it has no record of the key.
    let lost = #expect(throws: OperatorError.self) { try Run(workshop, text, siblings: false) }
    #expect(lost?.problem.contains("was used before") == true)
  }

  @Test(arguments: ["/proc/none/state", "/proc/none", "ab.key", "ab.key/state", "made/ab.key/../../ab.key"])
  func anUnusableDirectoryIsAnError(path: String) throws {
    let workshop = try Self.workshop()
    let before = try workshop.names()
    #expect(throws: SystemError.self) {
      try Run(workshop, Self.text().replacing("state: state", with: "state: \(path)"))
    }
    #expect(try workshop.names() == before)
  }

  // MARK: Reload

  @Test func reloadKeepsTheLeaseOfWhatStaysTheSame() throws {
    let workshop = try Self.workshop()
    var run = try Run(workshop)
    let lease = run.outbound.lease
    let again = try run.keeper.prepare(try workshop.parse(Self.text()), reserve: true)
    try run.keeper.commit()
    #expect(again.peers[0].outbound?.lease === lease)
    #expect(again == run.configuration)
    #expect(try run.recorded() == 1 << 22)
  }

  @Test func reloadWithAnotherSPINeverReusesNumbers() throws {
    let workshop = try Self.workshop()
    var run = try Run(workshop)
    let old = run.outbound
    let changed = try run.keeper.prepare(try workshop.parse(Self.text(spi: 0x2001)), reserve: true)
    let new = try #require(changed.peers[0].outbound)
    #expect(new.lease !== old.lease)
    #expect(new.firstSequence == old.lease!.limit + 1)
    // Usable at once, and on record.
    #expect(new.lease!.limit >= new.firstSequence)
    #expect(try run.recorded() == new.lease!.limit)
    try run.keeper.commit()
    #expect(run.raiseLeases(sent: old.lease!.limit).errors.isEmpty)
    #expect(old.lease!.limit < new.firstSequence, "the old lease is never raised again")
  }

  @Test func aRefusedReloadLeavesTheOldLeaseAlive() throws {
    let workshop = try Self.workshop()
    var run = try Run(workshop)
    let limit = run.limit
    let changed = try run.keeper.prepare(try workshop.parse(Self.text(spi: 0x2001)), reserve: true)
    let before = try #require(try run.recorded())
    run.keeper.rollBack()
    // Should the refused one have sealed something all the same, its numbers are not given to another.
    let next = try run.keeper.prepare(try workshop.parse(Self.text(spi: 0x3001)), reserve: false)
    #expect(next.peers[0].outbound!.firstSequence > changed.peers[0].outbound!.lease!.limit)
    run.keeper.rollBack()
    #expect(run.raiseLeases(sent: limit).errors.isEmpty)
    #expect(run.limit > limit)
    #expect(try #require(try run.recorded()) >= before, "a record never goes back while its key is in use")
    #expect(try run.recorded() == run.limit)
  }

  // MARK: Receiving

  @Test func aRestartRefusesWhatWasReceivedBefore() throws {
    let workshop = try Self.workshop()
    do {
      var run = try Run(workshop)
      #expect(run.configuration.peers[0].inbound[0].firstSequence == 1)
      #expect(run.recordReceived(sent: 0, received: 5000).isActive)
      #expect(!run.recordReceived(sent: 0, received: 5000).isActive)
    }
    do {
      var run = try Run(workshop)
      #expect(run.configuration.peers[0].inbound[0].firstSequence == 5001)
      _ = run.finish(sent: 0, received: 6000)
    }
    // Also under another SPI, name or peer, since it is the key that was used.
    let moved = Self.text(peer: "gamma").replacing("0x1002", with: "0x3002")
    let run = try Run(workshop, moved)
    #expect(run.configuration.peers[0].inbound[0].firstSequence == 6001)
  }

  @Test func keysThatAreGoneForAWhileStayOnRecord() throws {
    let workshop = try Self.workshop()
    do {
      var run = try Run(workshop)
      _ = run.recordReceived(sent: 0, received: 5000)
      _ = try run.keeper.prepare(try workshop.parse("name: alpha\nstate: state"), reserve: true)
      try run.keeper.commit()
      let back = try run.keeper.prepare(try workshop.parse(Self.text()), reserve: true)
      #expect(back.peers[0].inbound[0].firstSequence == 5001)
      #expect(back.peers[0].outbound?.firstSequence == 1 + 1 << 22)
    }
    #expect(try Run(workshop).configuration.peers[0].inbound[0].firstSequence == 5001)
  }

  // MARK: All of it

  /// Lives of a gateway at random: starts, traffic up to the lease, ticks, reloads that change the SPI or fail,
  /// crashes, clean stops, leftovers of interrupted writes. A model remembers every number that was used.
  @Test(arguments: 0..<12) func noNumberIsEverUsedTwice(seed: Int) throws {
    let workshop = try Self.workshop()
    var generator = SeededGenerator(seed: UInt64(seed))
    let extended = seed.isMultiple(of: 2)
    var spi = 0x1001
    /// The highest number that was ever used: all that follow must be higher.
    var used: UInt64 = 0
    var exact: UInt64?
    for _ in 0..<25 {
      if Int.random(in: 0..<4, using: &generator) == 0 {
        let key = Fingerprint(KeyMaterial((0..<20).map { UInt8(31 + $0) }))
        _ = try? workshop.write("state/\(key).sent.new-\(getpid())", "")
      }
      var run: Run
      do {
        run = try Run(workshop, Self.text(spi: spi, extended: extended))
      } catch let error as OperatorError {
        #expect(!extended && error.problem.contains("used up"))
        break
      }
      #expect(run.first > used)
      if let exact { #expect(run.first == exact + 1) }
      exact = nil
      var next = run.first
      for _ in 0..<Int.random(in: 0...12, using: &generator) {
        switch Int.random(in: 0..<6, using: &generator) {
        case 0...2:
          // Anything that the lease allows may be used at any moment.
          guard run.limit >= next else { break }
          let last = UInt64.random(in: next...run.limit, using: &generator)
          #expect(next > used)
          used = last
          next = last + 1
        case 3:
          #expect(run.raiseLeases(sent: next - 1).errors.isEmpty)
        case 4:
          spi += 1
          let plan = try workshop.parse(Self.text(spi: spi, extended: extended))
          guard let configuration = try? run.keeper.prepare(plan, reserve: true) else { break }
          try run.keeper.commit()
          run.plan = plan
          run.configuration = configuration
          next = run.first
          #expect(next > used)
        default:
          let plan = try workshop.parse(Self.text(spi: spi + 7))
          if (try? run.keeper.prepare(plan, reserve: true)) != nil { run.keeper.rollBack() }
        }
        #expect(try #require(try run.recorded()) >= max(used, run.limit))
      }
      if Bool.random(using: &generator) {
        #expect(run.finish(sent: next - 1).errors.isEmpty)
        exact = next - 1
      }
    }
    #expect(used > 0)
  }
}
