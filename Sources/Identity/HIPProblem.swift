/// Why bytes are no HIP packet.
public enum HIPProblem: Error, Equatable, Sendable, CustomStringConvertible {
  /// The number of bytes: fewer than a header's 40, more than `HIPPacket.longest`, no multiple of eight, or another one
  /// than the header tells.
  case length(Int)
  /// The first byte is another one than 59.
  case nextHeader(UInt8)
  /// Another version than 2, or bits beside it that are fixed (RFC 7401 §5.1).
  case version(UInt8)
  /// Over UDP it is zero (RFC 9028 §5.1): UDP has its own.
  case checksum(UInt16)
  /// A packet type that is not known here.
  case kind(UInt8)
  /// The sender's tag has no prefix of tags.
  case sender
  /// The receiver's tag has no prefix of tags; zeros have none.
  case receiver
  /// A parameter of the type does not end within the packet.
  case overrun(type: UInt16)
  /// A parameter of the type stands behind one of a greater type, or of the same where only one can be.
  case order(type: UInt16)

  public var description: String {
    switch self {
    case .length(let count): "\(count) bytes are not the length of a HIP packet, or not that which its header tells"
    case .nextHeader(let number): "the next header is \(number), not 59"
    case .version(let byte): "version and fixed bits are \(byte), not 33"
    case .checksum: "the checksum is not zero"
    case .kind(let number): "packets of type \(number) are not known here"
    case .sender: "the sender is no host identity tag"
    case .receiver: "the receiver is no host identity tag"
    case .overrun(let type): "parameter \(type) reaches past the end"
    case .order(let type): "parameter \(type) stands where none of its type may be"
    }
  }
}
