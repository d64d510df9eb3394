import Settings
import Testing

@testable import Dataplane
@testable import Gateway

/// What a gateway's file says of workers, and what becomes of it.
@Suite struct WorkerFileTests {
  private static let manual = "send: { spi: 4097, key: ab.key }\n    receive: { spi: 4098, key: ba.key }"

  private static func text(_ workers: String = "", peer: String = "", keys: String = manual) -> String {
    """
    name: alpha
    state: state
    \(workers)
    peers:
      - name: delta
        prefixes: [10.2.0.0/24]
        \(keys)
        replay-window: 64
        implicit-iv: yes
        \(peer)
    """
  }

  private static func workshop() throws -> Workshop {
    let workshop = try Workshop()
    try workshop.usualKeys()
    return workshop
  }

  /// Manual keys are one association of each direction, however many workers there are: worker 0 seals for all.
  @Test(arguments: [("", 1), ("workers: 4", 4)]) func manualKeysAreOneWorkers(setting: String, workers: Int) throws {
    let plan = try Self.workshop().parse(Self.text(setting))
    let peer = plan.peers[0].configuration
    #expect(plan.workers == workers)
    #expect(peer.inbound.count == 1 && peer.outbound != nil && peer.workerOutbound.isEmpty)
    #expect(!peer.negotiatesKeys && plan.peers[0].keys == nil)
  }

  /// How many there are on each side is told in the handshake.
  @Test func agreedKeysAreNoMatterOfTheFile() throws {
    let plan = try Self.workshop().parse(Self.text("workers: 4", keys: "secret: alpha-delta.secret"))
    let peer = plan.peers[0].configuration
    #expect(plan.workers == 4)
    #expect(peer.inbound.isEmpty && peer.outbound == nil && peer.workerOutbound.isEmpty && peer.negotiatesKeys)
  }

  @Test func whatDoesNotWorkIsRefused() throws {
    let workshop = try Self.workshop()
    let secret = "secret: alpha-delta.secret"
    for (own, theirs, keys, problem) in [
      ("workers: 3", "", secret, "'3' is not a number of workers"),
      ("", "workers: 2", secret, "workers: the peer tells that itself; remove it"),
      ("", "workers: 2", Self.manual, "workers: a peer with manual keys has one worker; remove it"),
    ] {
      do throws(FileProblems) {
        _ = try workshop.parse(Self.text(own, peer: theirs, keys: keys))
        Issue.record("\(own) \(theirs) was taken")
      } catch {
        #expect("\(error)".contains(problem), "\(error)")
        #expect(error.problems.count == 1)
      }
    }
  }

  /// No number is repeated after a restart, whichever worker seals (invariant 1).
  @Test func numbersGoOnAfterARestart() throws {
    let workshop = try Self.workshop()
    var last: UInt64 = 0
    for _ in 0..<3 {
      let run = try SequenceKeeperTests.Run(workshop, Self.text("workers: 4"))
      #expect(run.first == last + 1 && run.limit >= run.first)
      last = run.limit
    }
  }
}
