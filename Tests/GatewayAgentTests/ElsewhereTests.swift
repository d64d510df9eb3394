import Foundation
import Host
import Testing

@testable import Dataplane
@testable import Gateway

/// A start under a key whose numbers may have been used where its records do not know of it: above what the machine
/// remembers, or not at all.
@Suite struct ElsewhereTests {
  typealias Run = SequenceKeeperTests.Run
  private static let block: UInt64 = 1 << 22

  private static func copy(_ workshop: Workshop, _ from: String, _ to: String) throws {
    try FileManager.default.copyItem(atPath: workshop.file(from), toPath: workshop.file(to))
  }

  private static func remove(_ workshop: Workshop, _ name: String) throws {
    try FileManager.default.removeItem(atPath: workshop.file(name))
  }

  // MARK: What the machine remembers

  @Test func numbersGoOnAboveALostDirectory() throws {
    let workshop = try SequenceKeeperTests.workshop()
    do {
      var run = try Run(workshop, ledger: "ledger")
      _ = run.finish(sent: 777, received: 5000)
    }
    try Self.remove(workshop, "state")
    do {
      var run = try Run(workshop, ledger: "ledger")
      #expect(run.first == 778)
      #expect(run.configuration.peers[0].inbound[0].firstSequence == 5001)
      #expect(run.keeper.takeOutdated() == [workshop.file("ab.key")])
    }
    // After a crash, and once more with the records there are now.
    var run = try Run(workshop, ledger: "ledger")
    #expect(run.first == 778 + Self.block)
    #expect(run.keeper.takeOutdated().isEmpty)
  }

  @Test func numbersGoOnAboveAnOlderCopy() throws {
    let workshop = try SequenceKeeperTests.workshop()
    do {
      var run = try Run(workshop, ledger: "ledger")
      _ = run.finish(sent: 10, received: 20)
    }
    try Self.copy(workshop, "state", "backup")
    do {
      var run = try Run(workshop, ledger: "ledger")
      #expect(run.first == 11)
      _ = run.finish(sent: 900, received: 950)
    }
    try Self.remove(workshop, "state")
    try Self.copy(workshop, "backup", "state")
    do {
      var run = try Run(workshop, ledger: "ledger")
      #expect(run.first == 901)
      #expect(run.configuration.peers[0].inbound[0].firstSequence == 951)
      _ = run.finish(sent: 1000, received: 1000)
    }
    // What the machine forgets at its next start is in the records by now.
    #expect(try Run(workshop).first == 1001)
  }

  @Test func oneKeyHasOneGateway() throws {
    let workshop = try SequenceKeeperTests.workshop()
    let other = SequenceKeeperTests.text().replacing("state: state", with: "state: elsewhere")
    do {
      let run = try Run(workshop, ledger: "ledger")
      let error = #expect(throws: OperatorError.self) { try Run(workshop, other, ledger: "ledger") }
      #expect(
        error?.problem == "the key in \(workshop.file("ab.key")) is in use by another gateway on this machine")
      withExtendedLifetime(run) {}
    }
    #expect(try Run(workshop, other, ledger: "ledger").first == 1 + Self.block)
  }

  @Test func aKeyThatGoesIsFreeForAnother() throws {
    let workshop = try SequenceKeeperTests.workshop()
    var run = try Run(workshop, ledger: "ledger")
    _ = try run.keeper.prepare(try workshop.parse("name: alpha\nstate: state"), reserve: true)
    try run.keeper.commit()
    let other = SequenceKeeperTests.text().replacing("state: state", with: "state: elsewhere")
    #expect(try Run(workshop, other, ledger: "ledger").first == 1 + Self.block)
  }

  /// A process that is killed has recorded nothing of the last second, and nothing at all with a full disk.
  @Test func nothingReceivedBeforeACrashIsTakenAgain() throws {
    let workshop = try SequenceKeeperTests.workshop()
    do {
      let run = try Run(workshop, ledger: "ledger")
      run.note(1, 5000)
    }
    do {
      var run = try Run(workshop, ledger: "ledger")
      #expect(run.configuration.peers[0].inbound[0].firstSequence == 5001)
      _ = run.finish(sent: 1, received: 0)
    }
    let run = try Run(workshop, ledger: "ledger")
    #expect(run.configuration.peers[0].inbound[0].firstSequence == 5001)
  }

  @Test func aLedgerOfSomebodyElseIsNotTaken() throws {
    let workshop = try SequenceKeeperTests.workshop()
    try workshop.write("ledger", "", mode: 0o666)
    #expect(throws: OperatorError.self) { try KeyLedger(workshop.file("ledger")) }
    try workshop.write("other", "something else altogether", mode: 0o600)
    #expect(throws: OperatorError.self) { try KeyLedger(workshop.file("other")) }
  }

  // MARK: What only the records and the key's file know

  @Test func aCopiedDirectoryIsRefused() throws {
    let workshop = try SequenceKeeperTests.workshop()
    do {
      var run = try Run(workshop)
      _ = run.finish(sent: 10, received: 20)
    }
    try Self.copy(workshop, "state", "copy")
    let text = SequenceKeeperTests.text().replacing("state: state", with: "state: copy")
    for _ in 0..<2 {
      let error = #expect(throws: OperatorError.self) { try Run(workshop, text) }
      #expect(
        error?.problem == "the key in \(workshop.file("ab.key")) may have been used elsewhere: its record in "
          + "\(workshop.file("copy")) is a copy, and newer ones may have been used")
      #expect(
        error?.remedy == "make a new one with 'culvert keygen --cipher', here and at the peer; or remove "
          + "\(workshop.file("copy/copied")) when nothing else used the key since")
    }
    // The original is what it was; and who knows that the copy is the newest says so.
    #expect(try Run(workshop).first == 11)
    try Self.remove(workshop, "copy/copied")
    #expect(try Run(workshop, text).first == 11)
  }

  @Test func recordsOfAnotherMachineAreRefusedWhateverThisOneKnows() throws {
    let workshop = try SequenceKeeperTests.workshop()
    do {
      var run = try Run(workshop, ledger: "ledger")
      _ = run.finish(sent: 10, received: 20)
    }
    try workshop.write("state/origin", "0123456789abcdef0123456789abcdef 17\n")
    let error = #expect(throws: OperatorError.self) { try Run(workshop, ledger: "ledger") }
    #expect(error?.problem.hasSuffix("was made by another machine") == true)
    // New keys are nobody else's.
    try workshop.key("ab.key", seed: 7)
    try workshop.key("ba.key", seed: 8)
    #expect(try Run(workshop, ledger: "ledger").first == 1)
    #expect(try Run(workshop, ledger: "ledger").first == 1 + Self.block)
  }

  @Test func aKeyThatWasUsedNeedsItsRecord() throws {
    let workshop = try SequenceKeeperTests.workshop()
    do { _ = try Run(workshop) }
    try Self.remove(workshop, "state")
    let error = #expect(throws: OperatorError.self) { try Run(workshop) }
    #expect(
      error?.problem
        == "the key in \(workshop.file("ab.key")) was used before, and its record in \(workshop.file("state")) is gone")
    #expect(error?.remedy == "make a new one with 'culvert keygen --cipher', here and at the peer")
    try workshop.key("ab.key", seed: 9)
    #expect(try Run(workshop).first == 1)
  }

  @Test func aFailedStartMarksNothing() throws {
    let workshop = try SequenceKeeperTests.workshop()
    let plan = try workshop.parse(SequenceKeeperTests.text())
    do {
      let directory = try StateDirectory(plan.state)
      var keeper = try SequenceKeeper(
        directory, looksAtSiblings: false, ledger: try KeyLedger(workshop.file("ledger")))
      _ = try keeper.prepare(plan, reserve: true)
      keeper.abandon()
      directory.removeIfUnused()
    }
    #expect(try !workshop.names().contains("state"))
    #expect(try Run(workshop, ledger: "ledger").first == 1)
  }
}
