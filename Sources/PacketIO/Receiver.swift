import CLinux
import Glibc

/// Keeps one descriptor receiving: a multishot submission that the kernel feeds from a buffer ring where it can,
/// else one plain receive after the other. Whoever uses it sees the same bytes either way.
@safe public final class Receiver {
  /// `stream`: `read`, as from a TUN device. `message`: `recvmsg`, with the sender's address and control data.
  public enum Kind: Sendable { case stream, message }

  /// Where a received message's parts lie inside its buffer.
  public struct Received: BitwiseCopyable {
    public let buffer: BufferID
    /// Offset and length of the payload.
    public let offset: Int
    public let length: Int
    /// The sender's address (`message` only): a `sockaddr` of `nameLength` bytes.
    public let nameOffset: Int
    public let nameLength: Int
    public let controlOffset: Int
    public let controlLength: Int
    /// The kernel cut the message to the buffer.
    public let truncated: Bool
  }

  /// Bytes behind the payload that stay free, for a trailer written in place.
  static let tailroom = 64

  /// The descriptor as the ring knows it; whoever owns the receiver may also write to it.
  public let file: RingFile
  let kind: Kind
  let token: Token
  private let buffers: BufferRing?
  private var armed = false
  private var closed = false
  /// The buffer of the plain receive in flight.
  private var single: BufferID?
  private let message: UnsafeMutablePointer<msghdr>
  private let vector: UnsafeMutablePointer<iovec>

  /// - Parameters:
  ///   - group: a buffer group that nobody else uses on this ring.
  ///   - capacity: buffers the kernel may hold, a power of two.
  ///   - token: what completions carry.
  public init(
    _ descriptor: Int32, kind: Kind, group: UInt16, capacity: Int, token: Token, io: inout WorkerIO
  ) {
    file = io.ring.attach(descriptor)
    self.kind = kind
    self.token = token
    let multishot = io.ring.features.contains(kind == .stream ? .multishotRead : .multishotReceive)
    if multishot {
      buffers = BufferRing(&io.ring, group: group, capacity: capacity)
    } else {
      buffers = nil
    }
    unsafe message = .allocate(capacity: 1)
    unsafe message.initialize(to: msghdr())
    unsafe vector = .allocate(capacity: 1)
    unsafe vector.initialize(to: iovec())
  }

  deinit {
    unsafe message.deallocate()
    unsafe vector.deallocate()
  }

  /// Tops up the kernel's buffers and arms the receive when it is not. Call once a turn.
  public func rearm(io: inout WorkerIO) {
    guard !closed else { return }
    if let buffers {
      while buffers.held < buffers.capacity, let id = io.pool.take() {
        let bytes = io.pool.bytes(id)
        let front = kind == .stream ? BufferPool.headroom : 0
        buffers.offer(id, bytes.slice(front, bytes.count - front - Receiver.tailroom))
      }
      guard !armed, buffers.held > 0 else { return }
      armed = true
      switch kind {
      case .stream: io.ring.readMultishot(file, group: buffers.group, token: token)
      case .message:
        unsafe ReceivedMessage.prepare(message)
        unsafe io.ring.receiveMessageMultishot(file, message, group: buffers.group, token: token)
      }
    } else {
      guard !armed, let id = io.pool.take() else { return }
      armed = true
      single = id
      let bytes = io.pool.bytes(id)
      switch kind {
      case .stream:
        let front = BufferPool.headroom
        unsafe io.ring.read(
          file, into: bytes.pointer + front, count: bytes.count - front - Receiver.tailroom, token: token)
      case .message:
        unsafe ReceivedMessage.prepare(message, vector, bytes, tailroom: Receiver.tailroom)
        unsafe io.ring.receiveMessage(file, message, token: token)
      }
    }
  }

  /// What a completion under this receiver's token brought; the caller owns the buffer. Nil when it brought
  /// nothing; `error` then tells whether something is wrong with the descriptor.
  public func accept(_ completion: Completion, io: inout WorkerIO, error: inout Int32) -> Received? {
    if !completion.more { armed = false }
    var id = completion.buffer
    if let buffers {
      if id != nil { buffers.taken() }
    } else {
      id = single
      single = nil
    }
    guard completion.result >= 0 else {
      // ENOBUFS: the kernel's buffers ran dry. ECANCELED: closing. EAGAIN and EINTR: try again. `rearm` sees to all.
      if ![ENOBUFS, ECANCELED, EAGAIN, EINTR].contains(-completion.result) { error = -completion.result }
      if let id { io.pool.release(id) }
      return nil
    }
    guard let id else { return nil }
    let result = Int(completion.result)
    switch kind {
    case .stream:
      guard result > 0 else {
        io.pool.release(id)
        return nil
      }
      return Received(
        buffer: id, offset: BufferPool.headroom, length: result, nameOffset: 0, nameLength: 0, controlOffset: 0,
        controlLength: 0, truncated: false)
    case .message:
      return received(id, result, io: &io)
    }
  }

  private func received(_ id: BufferID, _ result: Int, io: inout WorkerIO) -> Received? {
    let lengths: ReceivedMessage.Lengths
    if buffers != nil {
      guard let found = ReceivedMessage.Lengths(io.pool.bytes(id), result: result) else {
        io.pool.release(id)
        return nil
      }
      lengths = found
    } else {
      lengths = unsafe ReceivedMessage.Lengths(message, payload: result)
    }
    return Received(
      buffer: id, offset: ReceivedMessage.front, length: lengths.payload, nameOffset: ReceivedMessage.nameOffset,
      nameLength: lengths.name, controlOffset: ReceivedMessage.controlOffset, controlLength: lengths.control,
      truncated: lengths.isTruncated)
  }

  /// Stops receiving; completions that still come are to be passed to `accept`.
  public func close(io: inout WorkerIO) {
    closed = true
    if armed { io.ring.cancel(token, token: Token(owner: token.owner, kind: Token.cancellation)) }
    io.ring.detach(file)
  }
}

/// How a received message lies in its buffer: `struct io_uring_recvmsg_out`, the sender's address, the control data, and
/// the payload; the first three in sum less than `BufferPool.headroom`. A plain `recvmsg` is given the same places.
package enum ReceivedMessage {
  static let outLength = 16
  package static let nameCapacity = 32
  package static let controlCapacity = 72
  /// Where the payload begins.
  package static let front = outLength + nameCapacity + controlCapacity

  /// What the kernel says of one: lengths of its parts, cut to their places.
  package struct Lengths: BitwiseCopyable {
    package var name: Int
    package var control: Int
    package var payload: Int
    package var isTruncated: Bool

    /// Of a plain receive; `header`: its `struct msghdr`.
    @unsafe package init(_ header: UnsafeRawPointer, payload: Int) {
      let header = unsafe header.assumingMemoryBound(to: msghdr.self).pointee
      unsafe self.init(
        name: Int(header.msg_namelen), control: Int(header.msg_controllen), payload: payload,
        flags: UInt32(bitPattern: header.msg_flags))
    }

    /// Of one that a multishot receive brought into `bytes`; nil when it is shorter than its own head.
    package init?(_ bytes: PacketBytes, result: Int) {
      guard result >= ReceivedMessage.front else { return nil }
      // struct io_uring_recvmsg_out { namelen, controllen, payloadlen, flags }, 32 bits each.
      self.init(
        name: Int(bytes.loadNative(0, as: UInt32.self)), control: Int(bytes.loadNative(4, as: UInt32.self)),
        payload: result - ReceivedMessage.front, flags: bytes.loadNative(12, as: UInt32.self))
    }

    private init(name: Int, control: Int, payload: Int, flags: UInt32) {
      self.name = min(name, ReceivedMessage.nameCapacity)
      self.control = min(control, ReceivedMessage.controlCapacity)
      self.payload = payload
      isTruncated = flags & UInt32(MSG_TRUNC) != 0
    }
  }

  static let nameOffset = outLength
  static let controlOffset = outLength + nameCapacity

  /// The sender's `sockaddr`, and the control data.
  package static func name(_ bytes: PacketBytes, _ lengths: Lengths) -> PacketBytes {
    bytes.slice(nameOffset, lengths.name)
  }
  package static func control(_ bytes: PacketBytes, _ lengths: Lengths) -> PacketBytes {
    bytes.slice(controlOffset, lengths.control)
  }

  /// What a multishot receive is told of the places; `header`: a `struct msghdr`.
  @unsafe package static func prepare(_ header: UnsafeMutableRawPointer) {
    let header = unsafe header.assumingMemoryBound(to: msghdr.self)
    unsafe header.pointee = msghdr()
    unsafe header.pointee.msg_namelen = UInt32(nameCapacity)
    unsafe header.pointee.msg_controllen = controlCapacity
  }

  /// Has a plain receive put the parts where a multishot one would, by a `struct msghdr` and an `iovec`; `tailroom` bytes at the buffer's end stay free.
  @unsafe package static func prepare(
    _ header: UnsafeMutableRawPointer, _ vector: UnsafeMutableRawPointer, _ bytes: PacketBytes, tailroom: Int = 0
  ) {
    unsafe prepare(header)
    let header = unsafe header.assumingMemoryBound(to: msghdr.self)
    let vector = unsafe vector.assumingMemoryBound(to: iovec.self)
    let base = unsafe bytes.pointer
    unsafe vector.pointee = iovec(iov_base: base + front, iov_len: bytes.count - front - tailroom)
    unsafe header.pointee.msg_name = base + nameOffset
    unsafe header.pointee.msg_control = base + controlOffset
    unsafe header.pointee.msg_iov = vector
    unsafe header.pointee.msg_iovlen = 1
  }

  /// What the kernel says beside the bytes: the size of a train's datagrams (`UDP_GRO`), nil when there was only one,
  /// and the outer traffic class.
  package static func ancillary(_ control: PacketBytes) -> (segmentSize: Int?, trafficClass: UInt8) {
    var segmentSize: Int?
    var trafficClass: UInt8 = 0
    var offset = 0
    while let piece = nextPiece(control, &offset) {
      switch (piece.level, piece.type) {
      case (Int32(CULVERT_SOL_UDP), Int32(CULVERT_UDP_GRO)) where piece.length >= 4:
        let size = Int(control.loadNative(piece.data, as: Int32.self))
        segmentSize = size > 0 ? size : nil
      case (Int32(IPPROTO_IP), IP_TOS), (Int32(IPPROTO_IPV6), IPV6_TCLASS):
        // One byte over IPv4, an int over IPv6: the low byte comes first in both.
        trafficClass = control[piece.data]
      default: break
      }
    }
    return (segmentSize, trafficClass)
  }

  /// The address of this machine that a datagram was sent to, where the socket tells (RFC 3542 §6.2).
  package static func destination(_ control: PacketBytes) -> IPAddress? {
    var offset = 0
    while let piece = nextPiece(control, &offset) {
      switch (piece.level, piece.type) {
      case (Int32(IPPROTO_IP), IP_PKTINFO) where piece.length >= 12:
        // struct in_pktinfo: the interface, and the address from which an answer is to leave.
        return IPAddress(v4: control.load32(piece.data + 4))
      case (Int32(IPPROTO_IPV6), IPV6_PKTINFO) where piece.length >= 20:
        return IPAddress(v6High: control.load64(piece.data), low: control.load64(piece.data + 8))
      default: break
      }
    }
    return nil
  }

  /// A piece of control data (`struct cmsghdr`); `data`: where what it says lies.
  @inline(__always) private static func nextPiece(_ control: PacketBytes, _ offset: inout Int) -> (
    level: Int32, type: Int32, data: Int, length: Int
  )? {
    let header = 16
    guard offset + header < control.count else { return nil }
    let start = offset
    let length = Int(truncatingIfNeeded: control.loadNative(start, as: UInt64.self))
    guard length > header, length <= control.count - start else { return nil }
    offset = start + ((length + 7) & ~7)
    return (
      control.loadNative(start + 8, as: Int32.self), control.loadNative(start + 12, as: Int32.self), start + header,
      length - header
    )
  }
}
