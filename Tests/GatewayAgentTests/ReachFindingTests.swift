import PacketIO
import Testing

@testable import Dataplane
@testable import Gateway

/// What is said of who can reach whom, over all that a path can have shown.
@Suite struct ReachFindingTests {
  private static let own = IPAddress(v4: 0xC000_0207)

  /// One direct path's part: nil where it does not work.
  struct Shown: Sendable {
    var name: String
    var state: PathState
    var isOpenedByPeer: Bool
    /// Nil: not known.
    var seenAs: Endpoint?

    var path: Statistics.Candidate {
      Statistics.Candidate(
        name: name, transport: name == "tcp" ? 1 : 0, path: Endpoint(address: IPAddress(v4: 0xC000_0202), port: 4500),
        state: state, stateAge: 1, isUsed: false,
        roundTrip: nil, loss: nil, probesSent: 1, probesAnswered: 1, pathMTU: nil, seenAs: seenAs,
        isOpenedByPeer: isOpenedByPeer)
    }

    static let own = Endpoint("192.0.2.7:4500", defaultPort: 0)
    static let translated = Endpoint("203.0.113.1:999", defaultPort: 0)

    static let all: [Shown] = ["udp", "tcp", PathChange.learned].flatMap { name in
      PathState.allCases.flatMap { state in
        [true, false].flatMap { opened in
          [nil, own, translated].map {
            Shown(name: name, state: state, isOpenedByPeer: opened, seenAs: $0)
          }
        }
      }
    }

    var hasShown: Bool { state == .working || state == .yielded }
  }

  private static func peer(_ paths: [Statistics.Candidate]) -> Statistics.Peer {
    var peer = Statistics.Peer(
      name: "beta", path: nil, sent: TrafficCount(), received: TrafficCount(), associations: [])
    peer.paths = paths
    return peer
  }

  /// All pairs of paths, against what each alone says.
  @Test func everyPairOfPaths() {
    for first in Shown.all {
      for second in Shown.all {
        let paths = [first, second]
        let finding = ReachFinding(Self.peer(paths.map(\.path))) { _ in Self.own }
        let shown = paths.filter(\.hasShown)
        guard !shown.isEmpty else {
          #expect(finding == nil)
          continue
        }
        let isTranslated = shown.contains { $0.seenAs == Shown.translated }
        let isOpen = shown.contains { $0.isOpenedByPeer }
        #expect(finding?.own == (isTranslated ? .translated : isOpen ? .open : .unknown), "\(paths)")
        let peerIsOpen = shown.contains { !$0.isOpenedByPeer && $0.name != PathChange.learned }
        #expect(finding?.peer == (peerIsOpen ? .open : .opensItself), "\(paths)")
        let seen = shown.compactMap(\.seenAs)
        #expect(finding?.seenAs == (seen.first { $0 == Shown.translated } ?? seen.first), "\(paths)")
      }
    }
  }

  /// Who meets at a proxy has shown nothing of who can be reached.
  @Test func hairpinsTellNothing() {
    var path = Shown(name: "udp-hairpin", state: .working, isOpenedByPeer: true, seenAs: Shown.translated).path
    path.transport = 3
    #expect(ReachFinding(Self.peer([path])) { _ in Self.own } == nil)
    #expect(ReachFinding(Self.peer([])) { _ in Self.own } == nil)
    // By a relay's path the peer sees the relay.
    for name in ["relay", "relay-tcp"] {
      let path = Shown(name: name, state: .working, isOpenedByPeer: true, seenAs: Shown.translated).path
      #expect(ReachFinding(Self.peer([path])) { _ in Self.own } == nil)
    }
  }

  @Test func itIsSaidInWords() throws {
    func text(_ shown: [Shown], local: IPAddress? = Self.own) throws -> String {
      try #require(ReachFinding(Self.peer(shown.map(\.path))) { _ in local }).text(peer: "beta")
    }
    let open = Shown(name: "tcp", state: .yielded, isOpenedByPeer: false, seenAs: Shown.own)
    let learned = Shown(name: PathChange.learned, state: .working, isOpenedByPeer: true, seenAs: nil)
    let translated = Shown(name: "udp", state: .working, isOpenedByPeer: false, seenAs: Shown.translated)
    #expect(try text([open, learned]) == "this gateway can be reached, seen as 192.0.2.7:4500; beta can be reached")
    #expect(try text([learned]) == "this gateway can be reached; beta is heard only on paths that it opens")
    #expect(
      try text([translated])
        == "this gateway is behind an address translator, seen as 203.0.113.1:999; beta can be reached")
    #expect(
      try text([translated], local: nil)
        == "nobody has opened a path to this gateway yet, seen as 203.0.113.1:999; beta can be reached")
  }
}
