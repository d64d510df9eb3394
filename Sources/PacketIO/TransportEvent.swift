/// The sealed packet that an ICMP error is about, as far as it is quoted (RFC 4303 §2).
public struct QuotedPacket: Sendable, Equatable, BitwiseCopyable {
  /// Under which association it was sent.
  public var spi: UInt32
  /// The last 32 bits of its number.
  public var sequence: UInt32

  /// What the first eight bytes of a sealed packet say.
  public init(spi: UInt32, sequence: UInt32) {
    self.spi = spi
    self.sequence = sequence
  }
}

/// Something a transport noticed along a path. Events repeat freely: the same one, again and again, is counted.
public struct TransportEvent: Sendable, Equatable {
  /// What happened there. Errors are positive errno values.
  public enum Kind: Sendable, Equatable {
    /// What this side has opened there is open, and the other side cannot know yet whose it is.
    case opened
    /// Something could not be sent there, or nothing could be opened.
    case failed(Int32)
    /// What was open there is not any more, though this side did not close it.
    case ended(Int32)
    /// IP packets of more than `over` bytes are refused there, headers included: by this machine's own link, or by a
    /// router that has quoted one of them. Whether such a message is to be believed, the dataplane judges.
    case refused(over: Int, quote: QuotedPacket?)
  }

  public let path: Path
  public let kind: Kind
  /// How often in a row.
  public internal(set) var count = 1

  public init(_ kind: Kind, _ path: Path) {
    self.kind = kind
    self.path = path
  }

  /// The errno, where there is one.
  public var error: Int32? {
    switch kind {
    case .opened, .refused: nil
    case .failed(let error), .ended(let error): error
    }
  }
}
