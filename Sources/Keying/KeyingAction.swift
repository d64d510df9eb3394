public import Identity
public import KeyDerivation
public import PacketIO

/// Key and SPI of one direction of a tunnel.
public struct TrafficKey: Sendable, Equatable {
  /// Security parameters index.
  public let spi: UInt32
  /// What is sealed with.
  public let suite: ESPSuite
  /// Key and salt.
  public let key: KeyMaterial
}

/// What is to be done. In order: an association is in force with all workers before anything behind it is done, because
/// that may tell the peer to use it.
public enum KeyingAction: Sendable {
  /// A packet of the handshake, without the four zero bytes that go before it.
  case send([UInt8], along: Path)
  /// Packets are accepted under these too.
  case installInbound([TrafficKey], partner: String)
  /// Packets are sealed under these, one for each worker; earlier ones are forgotten.
  case useOutbound([TrafficKey], partner: String)
  /// The partner is there: it has answered by this path, or from it.
  case usePath(Path, partner: String)
  /// The partner says that it is there, and has not answered from there yet: places to be asked, not to be sent to.
  /// So many bytes have come for that and went nowhere else.
  case located([Path], credit: Int, partner: String)
  /// Nothing is sealed for the partner any more.
  case stopSending(partner: String)
  /// Nothing is accepted under these any more.
  case retireInbound([UInt32], partner: String)
  case report(KeyingEvent)
}

/// What became of an exchange.
public enum KeyingEvent: Sendable, Equatable {
  /// There are keys, and the partner has shown that it has them.
  case established(partner: String, SessionReport)
  /// New keys are in use.
  case rekeyed(partner: String, SessionReport)
  /// - Parameter by: who was there instead, where somebody was.
  case failed(partner: String, KeyingFailure, by: Stranger? = nil)
  /// The partner has closed, or was closed.
  case closed(partner: String)
  /// There was no traffic for as long as `idleClose` on either side says. Traffic begins a handshake.
  case idle(partner: String)
  /// Somebody asks for a handshake who is no partner, or for somebody else than this side. Each is told of once.
  /// - Parameter partner: whose GID it gives as its own; nil: nobody's here.
  case stranger(Stranger, partner: String?)
  /// The partner says why it has refused something.
  case notified(partner: String, Notice)
  /// An identity relay says why something did not pass.
  case relayNotified(relay: HostIdentityTag, Notice)
}

/// Keys as they are in use.
public struct SessionReport: Sendable, Equatable {
  /// What is sealed with.
  public var suite: ESPSuite
  /// Of Diffie-Hellman.
  public var group: DiffieHellmanGroup
  /// A key encapsulation is in the keys, or in those that they come from.
  public var isPostQuantum: Bool
  /// One was agreed upon, and the rekey that brings it is under way.
  public var awaitsPostQuantum = false
  /// Seconds from the first packet to keys.
  public var duration: Double
  /// How often they were made anew.
  public var rekeys: Int
  /// When they were made.
  public var since: MonotonicTime
  /// When new ones are made, if not earlier.
  public var nextRekey: MonotonicTime
}

/// Why there are no keys.
public enum KeyingFailure: String, Error, Sendable, CaseIterable {
  /// Nothing comes back, or nothing that is the partner's.
  case noAnswer = "no answer"
  /// At the partner's place there is somebody with another key.
  case otherKey = "another key"
  /// No suite, group or mechanism in common.
  case nothingInCommon = "nothing in common"
  /// Packets are malformed, or their signature is another's.
  case notAuthentic = "not authentic"
  /// The partner does not take part in post-quantum keys, which are required.
  case notPostQuantum = "no post-quantum keys"
  /// The partner has made keys eight times in two minutes, and has to wait.
  case tooOften = "too many handshakes"
  /// There are keys, nothing is heard of the partner, and it answers no handshake.
  case lost = "lost"
  /// Keys are used up and no new ones could be agreed upon.
  case expired = "expired"

  /// What the partner offers or wants is the reason.
  var isSaid: Bool { self == .nothingInCommon || self == .notPostQuantum }
}
