import PacketIO
import Settings
import Testing

@testable import Dataplane
@testable import Gateway

/// What a gateway's file says of workers, and what becomes of it.
@Suite struct WorkerFileTests {
  private static func text(_ workers: String = "", peer: String = "", keys: String? = nil) -> String {
    """
    name: alpha
    state: state
    \(workers)
    peers:
      - name: delta
        prefixes: [10.2.0.0/24]
        \(keys ?? "secret: alpha-delta.secret")
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

  @Test func oneWorkerHasTheAssociationsThatThereAlwaysWere() throws {
    let file = try Self.workshop().parse(Self.text())
    #expect(file.workers == 1)
    #expect(file.peers[0].configuration.inbound.count == 1 && file.peers[0].configuration.workerOutbound.isEmpty)
  }

  /// Each worker seals under its own; the partner has as many as we, unless the file says otherwise.
  @Test(arguments: [("workers: 2", "", 2, 3), ("workers: 4", "workers: 1", 4, 1), ("", "workers: 8", 0, 9)])
  func severalWorkersHaveTheirOwn(own: String, theirs: String, outbound: Int, inbound: Int) throws {
    let peer = try Self.workshop().parse(Self.text(own, peer: theirs)).peers[0].configuration
    #expect(peer.workerOutbound.count == outbound && peer.inbound.count == inbound)
    #expect(peer.workerOutbound.map { Int($0.spi & 15) } == Array(0..<outbound))
    #expect(peer.inbound.dropFirst().map { Int($0.spi & 15) } == Array(0..<inbound - 1))
    #expect((peer.workerOutbound + peer.inbound).allSatisfy { $0.implicitIV })
    #expect(peer.inbound.allSatisfy { $0.replayWindow == 64 })
    let keys = Set(
      (peer.workerOutbound + peer.inbound + [peer.outbound].compactMap(\.self)).map { Fingerprint($0.key) })
    #expect(keys.count == outbound + inbound + 1)
  }

  @Test func whatDoesNotWorkIsRefused() throws {
    let workshop = try Self.workshop()
    for (own, theirs, keys, problem) in [
      ("workers: 3", "", nil as String?, "'3' is not a number of workers"),
      ("", "workers: auto", nil, "'auto' is not a number of workers"),
      ("", "workers: 2", "send: { spi: 4097, key: ab.key }", "the peer has no secret to derive their keys from"),
    ] {
      let peer = keys == nil ? theirs : "\(theirs)\n    receive: { spi: 4098, key: ba.key }"
      do throws(FileProblems) {
        _ = try workshop.parse(Self.text(own, peer: peer, keys: keys))
        Issue.record("\(own) \(theirs) was taken")
      } catch {
        #expect("\(error)".contains(problem), "\(error)")
      }
    }
  }

  /// No worker repeats a sequence number after a restart (invariant 1).
  @Test func eachWorkersNumbersGoOnAfterARestart() throws {
    let workshop = try Self.workshop()
    var limits: [UInt32: UInt64] = [:]
    for _ in 0..<3 {
      let run = try SequenceKeeperTests.Run(workshop, Self.text("workers: 4"))
      let peer = run.configuration.peers[0]
      let associations = [peer.outbound].compactMap(\.self) + peer.workerOutbound
      #expect(associations.count == 5)
      for association in associations {
        let limit = try #require(association.lease?.limit)
        #expect(association.firstSequence == (limits[association.spi] ?? 0) + 1 && limit >= association.firstSequence)
        limits[association.spi] = limit
      }
    }
  }
}
