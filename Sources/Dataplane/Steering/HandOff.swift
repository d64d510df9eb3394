package import PacketIO

/// What one worker hands to another, beside the bytes of a packet. A row is that of the sender's list of peers, whose
/// version goes with it.
package enum HandOff: BitwiseCopyable, Sendable {
  // Packets. Buffer and offset of a superpacket mean nothing to the receiver.

  /// From the device, for the owner of its flow.
  case outbound(Superpacket)
  /// The owner's firewall has let it pass; worker 0 is to seal it.
  case judged(Superpacket)
  /// Opened, for the owner of its flow to judge and deliver.
  case opened(peer: Int32, version: UInt32)
  /// Sealed, for the worker that has the association.
  case sealed(Superpacket)

  // Messages.

  /// A control message that a peer has sent; worker 0 talks with peers. Its body lies beside.
  case control(ControlArrival, version: UInt32)
  /// A peer has answered under the receiver's own association.
  case answered(peer: Int32, version: UInt32)
  /// Where a peer's path leads.
  case path(PathUpdate, version: UInt32)
  /// When a peer was sent to and heard.
  case activity(PeerActivity, version: UInt32)
  /// A peer was heard at another place than its path.
  case heard(peer: Int32, at: Path, version: UInt32)
  /// A transport says that a path fails, for this reason.
  case failed(Path)
  /// A transport says that packets of more than so many bytes are refused there.
  case refused(Path, over: Int32, quote: QuotedPacket?)

  /// Of the list of peers that it speaks of; nil: it speaks of none.
  var version: UInt32? {
    switch self {
    case .outbound, .judged, .sealed, .failed, .refused: nil
    case .opened(_, let version), .control(_, let version), .answered(_, let version), .path(_, let version),
      .activity(_, let version), .heard(_, _, let version):
      version
    }
  }

  /// It brings a packet rather than a message.
  var isPacket: Bool {
    switch self {
    case .outbound, .judged, .opened, .sealed: true
    case .control, .answered, .path, .activity, .heard, .failed, .refused: false
    }
  }
}

/// An authentic control message: where it lies and where it came from.
package struct ControlArrival: BitwiseCopyable, Sendable {
  package var peer: Int32
  package var type: UInt8
  package var buffer: BufferID
  package var offset: Int32
  package var length: Int32
  package var path: Path
  /// No later packet of its association had come before.
  package var isNewest: Bool
}

/// What worker 0 tells the others of a peer: its path, and what it takes.
package struct PathUpdate: BitwiseCopyable, Sendable, Equatable {
  var peer: Int32
  /// Nil: there is none.
  var path: Path?
  /// Bytes of the largest sealed packet that the path takes, and of the largest that cannot be cut.
  var sealedLimit: Int32
  var trialLimit: Int32
  /// The peer has said that it takes several packets in one.
  var takesAggregates = false
}

/// What a worker tells worker 0 of a peer: when packets were last sent and heard.
package struct PeerActivity: BitwiseCopyable, Sendable {
  var peer: Int32
  var lastSent: MonotonicTime
  var lastHeard: MonotonicTime?
  /// By `path`.
  var lastHeardHere: MonotonicTime
  var path: Path?
}
