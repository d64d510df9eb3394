package import PacketIO

/// One stream, from the dial or the accept until nothing of it is in flight any more.
package struct Stream: BitwiseCopyable {
  package enum State: UInt8, BitwiseCopyable {
    case free, connecting
    /// Connected; both ends have yet to agree on how it is encrypted.
    case securing
    case open
    /// Shut down; it goes when the kernel has let go of it.
    case closing
  }

  /// What is known of who is at the other end.
  package enum Standing: UInt8, BitwiseCopyable {
    /// Nothing: it has a deadline, and makes room for others.
    case unauthenticated
    /// It has presented what an outsider does not have, and has yet to prove that it is its own.
    case presented
    /// It belongs to a partner. A stream that this side has dialled does from the beginning.
    case authenticated
  }

  package var state = State.free
  package internal(set) var standing = Standing.unauthenticated
  /// Whom it is accounted to.
  package internal(set) var holder = Holder.peer(0)
  package var descriptor: Int32 = -1
  /// What is on the wire is not what it carries.
  package internal(set) var isEncrypted = false
  /// Never used again.
  package internal(set) var number: UInt64 = 0
  /// The other end.
  package internal(set) var remote = Endpoint.unspecified
  package var framer = RecordFramer(isOriginator: false)
  /// What has come of a record whose rest has not.
  package var carry = RecordCarry.Part()
  /// What the kernel does for it: to a link that receives and sends by the ring these are requests, to a relay polls.
  package var isConnecting = false
  package var isReceiving = false
  package var isSending = false
  /// It is on the list of those that wait for a receive.
  var isUnarmed = false
  package var receivedBytes = 0
  /// When it must be open, or authenticated.
  package internal(set) var deadline = MonotonicTime(nanoseconds: 0)
  /// Where it was dialled to, as its owner numbers that; nil: it was accepted.
  package internal(set) var destination: Int32?
  /// Its neighbours among those that are not authenticated, in the order of their coming; -1: none.
  var earlier: Int32 = -1
  var later: Int32 = -1

  package init() {}

  package var isIdle: Bool { !isConnecting && !isReceiving && !isSending }
  /// Something comes by it, or may come.
  package var isConnected: Bool { state == .open || state == .securing }
  /// It is connected, and nobody knows yet whose it is.
  package var isUnauthenticated: Bool { isConnected && standing != .authenticated }

  /// Whose streams are counted together.
  package var origin: IPAddress { Stream.origin(remote.address) }

  /// One IPv4 address, or a site of IPv6, which has as many addresses as it likes.
  package static func origin(_ address: IPAddress) -> IPAddress {
    address.isV4 ? address : IPAddress(v6High: address.high, low: 0)
  }

  /// The /56 of an IPv6 address.
  static func site(_ address: IPAddress) -> IPAddress? {
    address.isV4 ? nil : IPAddress(v6High: address.high & ~0xFF, low: 0)
  }
}
