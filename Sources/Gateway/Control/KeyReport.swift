import KeyAgreement
import Keying
import PacketIO

/// How the agreement upon keys with a peer stands.
public struct KeyReport: Codable, Sendable, Equatable {
  public enum State: String, Codable, Sendable {
    /// There are keys, and the peer has shown that it has them.
    case established
    /// It is being tried.
    case connecting
    /// It was tried, for the reason that `problem` gives, and is tried again.
    case failed
    /// There are keys, nothing is heard of the peer, and it answers no handshake.
    case lost
    /// Keys were closed for want of traffic (`idle-close`), which begins it again.
    case idle
  }

  /// The peer's GID.
  public var gid: String
  public var state: State
  public var problem: String?
  /// "aes-128-gcm".
  public var suite: String?
  public var implicitIV: Bool?
  /// Of Diffie-Hellman.
  public var group: String?
  public var isPostQuantum: Bool?
  /// The first rekey, which is to make them so, is under way.
  public var awaitsPostQuantum: Bool?
  /// Seconds since the keys were made, and until new ones are.
  public var age: Double?
  public var nextRekey: Double?
  public var rekeys: Int?

  init(_ status: KeyStatus, now: MonotonicTime) {
    gid = status.remote
    state =
      switch (status.session, status.failure) {
      case (_?, .lost): .lost
      case (_?, _): .established
      case (nil, _) where status.isIdle: .idle
      case (nil, _?): .failed
      case (nil, nil): .connecting
      }
    problem = state == .failed ? status.failure?.rawValue : nil
    guard let session = status.session else { return }
    suite = session.suite.cipher.rawValue
    implicitIV = session.suite.implicitIV
    group = "\(session.group)"
    isPostQuantum = session.isPostQuantum
    awaitsPostQuantum = session.awaitsPostQuantum
    age = Double(now.nanoseconds(since: session.since)) / 1e9
    nextRekey = Double(session.nextRekey.nanoseconds(since: now)) / 1e9
    rekeys = session.rekeys
  }
}
