public import PacketIO

/// One way to a peer: an entry of its list, the best first.
public struct ConfiguredPath: Sendable, Equatable {
  /// Shown in statistics and events: "udp", "tcp-hairpin".
  public var name: String
  public var path: Path
  /// False: this side sends nothing here before it has heard from the peer by this path, as where only the peer can
  /// open it.
  public var originates: Bool
  /// It leads to a relay: where the peer is found elsewhere, that is better.
  public var isRelayed: Bool

  public init(name: String = "path", path: Path, originates: Bool = true, isRelayed: Bool = false) {
    self.name = name
    self.path = path
    self.originates = originates
    self.isRelayed = isRelayed
  }

  /// Paths of a peer's list at most.
  public static let listCapacity = 8
}

extension [ConfiguredPath] {
  /// There is more than one path to the peer, or may be: behind a relay there is a peer who may be reached straight.
  var areChoice: Bool { count > 1 || contains(where: \.isRelayed) }
}

/// How a path to a peer is doing.
public enum PathState: String, Sendable, Codable, CaseIterable, BitwiseCopyable {
  /// Its turn has not come.
  case untried
  /// Asked, and not answered yet.
  case trying
  /// The peer answers.
  case working
  /// Answers are overdue; it is asked in quick succession.
  case suspect
  /// Nothing came back, or its transport said so. Asked again now and then.
  case dead
  /// Closed, because a stream that the peer opened does instead, or left to the peer to close. It is opened again when
  /// the other one ends.
  case yielded
}

/// Why a peer's traffic takes the path it takes.
public enum PathReason: String, Sendable, Codable, CaseIterable, BitwiseCopyable {
  /// None has answered yet, so the first of the list is as good as any.
  case nothingAnswers = "nothing answers yet"
  case answeredFirst = "answered first"
  case provedBetter = "proved itself and is higher on the list"
  case previousSilent = "the one before fell silent"
  case previousFailed = "the one before failed"
  case previousLossy = "the one before loses too much"
  /// The other side leads, or knows better.
  case partnerUses = "the peer uses it"
  case partnerMoved = "the peer has another address"
  case configured = "the configuration changed"
  /// Both sides had opened a stream.
  case streamKept = "of two streams, the higher address's stays"
}

/// A peer's traffic takes another path.
public struct PathChange: Sendable, Equatable {
  /// Its name in the list; "learned" where it is on no list.
  public var name: String
  public var path: Path
  public var reason: PathReason
  /// The path before; nil: there was none.
  public var previous: Path?
  /// What is known of the path at that moment, as in `Statistics.Path`: seconds, and the share of lost probes.
  public var roundTrip: Double?
  public var loss: Double?

  /// What paths are called that are on no list: the peer was heard there.
  public static let learned = "learned"
}
