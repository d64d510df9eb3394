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

  /// Layout of `struct io_uring_recvmsg_out`, the address and the control data in front of a message's payload;
  /// in sum less than `BufferPool.headroom`.
  static let outLength = 16
  static let nameCapacity = 32
  static let controlCapacity = 72
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
        unsafe buffers.offer(id, bytes.pointer + front, count: bytes.count - front - Receiver.tailroom)
      }
      guard !armed, buffers.held > 0 else { return }
      armed = true
      switch kind {
      case .stream: io.ring.readMultishot(file, group: buffers.group, token: token)
      case .message:
        unsafe message.pointee = msghdr()
        unsafe message.pointee.msg_namelen = UInt32(Receiver.nameCapacity)
        unsafe message.pointee.msg_controllen = Receiver.controlCapacity
        unsafe io.ring.receiveMessageMultishot(file, message, group: buffers.group, token: token)
      }
    } else {
      guard !armed, let id = io.pool.take() else { return }
      armed = true
      single = id
      let bytes = io.pool.bytes(id)
      let base = unsafe bytes.pointer
      switch kind {
      case .stream:
        let front = BufferPool.headroom
        unsafe io.ring.read(file, into: base + front, count: bytes.count - front - Receiver.tailroom, token: token)
      case .message:
        let front = Receiver.outLength + Receiver.nameCapacity + Receiver.controlCapacity
        unsafe vector.pointee = iovec(iov_base: base + front, iov_len: bytes.count - front - Receiver.tailroom)
        unsafe message.pointee = msghdr()
        unsafe message.pointee.msg_name = base + Receiver.outLength
        unsafe message.pointee.msg_namelen = UInt32(Receiver.nameCapacity)
        unsafe message.pointee.msg_control = base + Receiver.outLength + Receiver.nameCapacity
        unsafe message.pointee.msg_controllen = Receiver.controlCapacity
        unsafe message.pointee.msg_iov = vector
        unsafe message.pointee.msg_iovlen = 1
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
    let front = Receiver.outLength + Receiver.nameCapacity + Receiver.controlCapacity
    let nameLength: Int, controlLength: Int, length: Int, truncated: Bool
    if buffers != nil {
      // struct io_uring_recvmsg_out { namelen, controllen, payloadlen, flags }, 32 bits each.
      let bytes = io.pool.bytes(id)
      guard result >= front else {
        io.pool.release(id)
        return nil
      }
      nameLength = Int(bytes.loadNative(0, as: UInt32.self))
      controlLength = Int(bytes.loadNative(4, as: UInt32.self))
      length = result - front
      truncated = bytes.loadNative(12, as: UInt32.self) & UInt32(MSG_TRUNC) != 0
    } else {
      nameLength = unsafe Int(message.pointee.msg_namelen)
      controlLength = unsafe message.pointee.msg_controllen
      length = result
      truncated = unsafe message.pointee.msg_flags & Int32(MSG_TRUNC) != 0
    }
    return Received(
      buffer: id, offset: front, length: length, nameOffset: Receiver.outLength,
      nameLength: min(nameLength, Receiver.nameCapacity),
      controlOffset: Receiver.outLength + Receiver.nameCapacity,
      controlLength: min(controlLength, Receiver.controlCapacity), truncated: truncated)
  }

  /// Stops receiving; completions that still come are to be passed to `accept`.
  public func close(io: inout WorkerIO) {
    closed = true
    if armed { io.ring.cancel(token, token: Token(owner: token.owner, kind: Token.cancellation)) }
    io.ring.detach(file)
  }
}
