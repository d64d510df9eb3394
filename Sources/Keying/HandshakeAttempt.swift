import Identity
import PacketIO

/// A handshake that this side has begun.
enum HandshakeAttempt {
  case none
  /// Nobody has answered; it is tried again then.
  case waiting(until: MonotonicTime)
  /// I1-SENT.
  case asked(Asked)
  /// I2-SENT.
  case answered(Answered)

  /// When the first I1 went.
  var began: MonotonicTime? {
    switch self {
    case .none, .waiting: nil
    case .asked(let asked): asked.began
    case .answered(let answered): answered.began
    }
  }

  /// When there is something to do though nothing comes.
  var deadline: MonotonicTime? {
    switch self {
    case .none: nil
    case .waiting(let until): until
    case .asked(let asked): asked.next?.at ?? asked.retry.next
    case .answered(let answered): answered.retry.next
    }
  }

  struct Asked {
    let began: MonotonicTime
    /// Rounds over all paths.
    var retry: Retry
    /// The path that comes next, and when; nil: this round is over.
    var next: (path: Int, at: MonotonicTime)?
  }

  struct Answered {
    let began: MonotonicTime
    let packet: [UInt8]
    let path: Path
    var retry: Retry
    let terms: Session.Terms
    let secret: KeyMaterial
    let macKeys: (sent: KeyMaterial, received: KeyMaterial)
    /// Of the R1, to tell a repeat from another.
    let puzzle: [UInt8]
    /// Another one that came since.
    var other: (packet: HIPPacket, path: Path)?
  }
}
