import PacketIO
import Testing

@testable import Gateway

/// Who opens a path, over all situations of both sides.
@Suite struct ReachTests {
  private static let (low, high) = (IPAddress(v4: 0xC000_0201), IPAddress(v4: 0xC000_0202))

  /// The rules one by one, in the words of the requirement.
  private static func rule(here: Reach, there: Reach, own: IPAddress?, peer: IPAddress) -> Reach.Opener {
    if here == .firewalled && there == .firewalled { return .nobody }
    if here == .firewalled { return .here }
    if there == .firewalled { return .there }
    guard here == .open, there == .open, let own else { return .both }
    if own > peer { return .here }
    return own < peer ? .there : .both
  }

  @Test func everySituation() {
    for here in Reach.allCases {
      for there in Reach.allCases {
        for own in [nil, Self.low, Self.high] as [IPAddress?] {
          for peer in [Self.low, Self.high] {
            let opener = Reach.opener(here: here, there: there, ownAddress: own, peerAddress: peer)
            #expect(opener == Self.rule(here: here, there: there, own: own, peer: peer))
            // The other side, which knows the same, comes to the opposite.
            guard let own else { continue }
            let opposite = Reach.opener(here: there, there: here, ownAddress: peer, peerAddress: own)
            switch opener {
            case .here: #expect(opposite == .there)
            case .there: #expect(opposite == .here)
            case .both, .nobody: #expect(opposite == opener)
            }
          }
        }
      }
    }
  }

  /// IPv6 addresses are compared as numbers too, and are higher than those of IPv4.
  @Test func addressesAreCompared() throws {
    for (low, high) in [("9.0.0.1", "10.0.0.1"), ("fd00::9", "fd00::10"), ("255.0.0.1", "::1")] {
      let (low, high) = (try #require(IPAddress(low)), try #require(IPAddress(high)))
      #expect(Reach.opener(here: .open, there: .open, ownAddress: high, peerAddress: low) == .here)
      #expect(Reach.opener(here: .open, there: .open, ownAddress: low, peerAddress: high) == .there)
    }
  }
}
