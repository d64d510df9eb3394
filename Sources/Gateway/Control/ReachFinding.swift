import Dataplane
import Host
public import PacketIO

/// What the paths to a peer have shown of who can reach whom.
public struct ReachFinding: Codable, Sendable, Equatable {
  /// This gateway's situation, as seen from that peer.
  public enum Own: String, Codable, Sendable {
    /// The peer was heard on a path that this side had not opened.
    case open
    /// The peer sees another address than the one that packets leave from.
    case translated
    /// Nothing shows that the peer could open a path.
    case unknown
  }

  /// The peer's, as seen from here.
  public enum Other: String, Codable, Sendable {
    /// A path that this side opened works.
    case open
    /// Only paths that it opened itself work.
    case opensItself = "opens-itself"
    case unknown
  }

  /// Of this gateway.
  public var own: Own
  /// This gateway's address as the peer sees it on a direct path; nil: not known.
  public var seenAs: Endpoint?
  /// Of the peer.
  public var peer: Other

  /// - Parameter localAddress: from which packets leave that go there; nil: not known.
  init?(_ peer: Statistics.Peer, localAddress: (Endpoint) -> IPAddress? = LocalAddress.toward) {
    // By a relay's path the peer sees the relay.
    let direct = peer.paths.filter {
      $0.transport <= Int(TransportPlace.encryptedStreams) && !$0.name.hasPrefix(PathReader.relayName)
    }
    // A stream that was given up for the peer's has worked before.
    let shown = direct.filter { $0.state == .working || $0.state == .yielded }
    guard !shown.isEmpty else { return nil }
    own = shown.contains(where: \.isOpenedByPeer) ? .open : .unknown
    let isOpen = shown.contains { !$0.isOpenedByPeer && $0.name != PathChange.learned }
    self.peer = isOpen ? .open : .opensItself
    for path in shown where own != .translated {
      guard let seen = path.seenAs else { continue }
      seenAs = seenAs ?? seen
      guard let local = localAddress(path.path) else { continue }
      if seen.address != local { (own, seenAs) = (.translated, seen) }
    }
  }

  /// "this gateway is behind an address translator, seen as 192.0.2.1:4500; beta can be reached".
  public func text(peer name: String) -> String {
    let seen = seenAs.map { ", seen as \($0)" } ?? ""
    let here =
      switch own {
      case .open: "this gateway can be reached\(seen)"
      case .translated: "this gateway is behind an address translator\(seen)"
      case .unknown: "nobody has opened a path to this gateway yet\(seen)"
      }
    let there =
      switch peer {
      case .open: "\(name) can be reached"
      case .opensItself: "\(name) is heard only on paths that it opens"
      case .unknown: "\(name) has not been heard"
      }
    return "\(here); \(there)"
  }
}
