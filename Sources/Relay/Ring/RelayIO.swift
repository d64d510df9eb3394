import CLinux
import Glibc
import PacketIO

/// The proxy's ring, and the buffers that all its sockets share.
///
/// What a socket holds while nothing comes is one request in the kernel: a multishot receive that takes a buffer when
/// something has arrived, or a poll. A side whose bandwidth is limited is polled, and read with `pull` when its turn has
/// come, so that what it may not send yet waits in its socket. So are the control ports, and all where the kernel has no
/// multishot receive.
@safe struct RelayIO: ~Copyable {
  /// What a completion is about; `Token.kind`.
  enum Kind: UInt8 {
    case control, listener, receive, readable, accept, streamReadable, streamWritable, send, wake, shared,
      cancelled
  }

  /// One received message; whoever took it holds the buffer.
  struct Message: BitwiseCopyable {
    var buffer: BufferID
    var bytes: PacketBytes
    var segmentSize: Int
    var trafficClass: UInt8
    var isTruncated: Bool
    /// The sender's `sockaddr`, and what the kernel says beside the bytes.
    var name: PacketBytes
    var control: PacketBytes
    /// Its datagrams.
    var segments: SegmentIterator { SegmentIterator(end: bytes.count, size: segmentSize) }
  }

  /// Messages of one `pull` at most.
  static let pullCapacity = 64
  private static let entries: UInt32 = 1024
  /// Buffers of which the kernel may choose; and all, with those on their way out and for streams.
  private static let heldBuffers = 128
  private static let poolBuffers = 384
  var ring: Ring
  let pool = BufferPool(count: RelayIO.poolBuffers)
  private let buffers: BufferRing?
  /// Lengths for multishot receives, at an address that stays.
  private var lengths: FixedArray<msghdr>
  /// For `pull` alone, so that all its completions are there when the submission returns.
  private var pulls: Ring
  private var headers: FixedArray<msghdr>
  private var vectors: FixedArray<iovec>
  private var pulled = FixedArray<Message>(capacity: RelayIO.pullCapacity)
  private var slots: FixedArray<BufferID>

  init(allowed: RingFeatures = .all) throws(SystemError) {
    var ring = try Ring(entries: RelayIO.entries, allowed: allowed)
    let pulls = try Ring(entries: UInt32(RelayIO.pullCapacity), allowed: allowed)
    buffers =
      ring.features.contains(.multishotReceive)
      ? BufferRing(&ring, group: 0, capacity: RelayIO.heldBuffers) : nil
    self.ring = ring
    self.pulls = pulls
    unsafe lengths = FixedArray(repeating: msghdr(), count: 1)
    unsafe ReceivedMessage.prepare(lengths.pointer)
    unsafe headers = FixedArray(repeating: msghdr(), count: RelayIO.pullCapacity)
    unsafe vectors = FixedArray(repeating: iovec(), count: RelayIO.pullCapacity)
    slots = FixedArray(repeating: 0, count: RelayIO.pullCapacity)
  }

  /// Binds both rings to the calling thread.
  mutating func activate() {
    ring.activate()
    pulls.activate()
    topUp()
  }

  /// Whether the kernel can hand over what comes without being asked each time.
  var canPush: Bool { buffers != nil }
  /// Whether it has buffers for that.
  var hasBuffers: Bool { (buffers?.held ?? 0) > 0 }

  /// Gives the kernel as many buffers as it may have; some stay for sends and streams.
  func topUp() {
    guard let buffers else { return }
    while buffers.held < buffers.capacity, let id = pool.take() {
      buffers.offer(id, pool.bytes(id))
    }
  }

  // MARK: Requests

  /// Has messages of a socket handed over until that ends by itself or is cancelled.
  mutating func receive(_ descriptor: Int32, token: Token) {
    unsafe ring.receiveMessageMultishot(RingFile(descriptor), lengths.pointer, group: 0, token: token)
  }

  mutating func pollReadable(_ descriptor: Int32, token: Token) {
    ring.pollReadable(RingFile(descriptor), token: token)
  }

  mutating func cancel(_ token: Token) { ring.cancel(token, token: Token(owner: 0, kind: Kind.cancelled)) }

  // MARK: Messages

  /// What a completion of `receive` brought, if anything; the caller owns the buffer.
  func message(_ completion: Completion) -> Message? {
    guard let id = completion.buffer, let buffers else { return nil }
    buffers.taken()
    guard let lengths = ReceivedMessage.Lengths(pool.bytes(id), result: Int(completion.result)) else {
      pool.release(id)
      return nil
    }
    return message(id, lengths)
  }

  private func message(_ id: BufferID, _ lengths: ReceivedMessage.Lengths) -> Message {
    let bytes = pool.bytes(id)
    let control = ReceivedMessage.control(bytes, lengths)
    let ancillary = ReceivedMessage.ancillary(control)
    return Message(
      buffer: id, bytes: bytes.slice(ReceivedMessage.front, lengths.payload),
      segmentSize: max(ancillary.segmentSize ?? lengths.payload, 1), trafficClass: ancillary.trafficClass,
      isTruncated: lengths.isTruncated, name: ReceivedMessage.name(bytes, lengths),
      control: control)
  }

  /// Takes up to `limit` messages that wait in a socket, `pullCapacity` at most.
  ///
  /// - Returns: whether the socket has nothing more. `takePulled` then gives the messages, in order.
  mutating func pull(_ descriptor: Int32, limit: Int) -> Bool {
    pulled.removeAll()
    var count = 0
    while count < min(limit, RelayIO.pullCapacity), let id = pool.take() {
      unsafe ReceivedMessage.prepare(headers.pointer + count, vectors.pointer + count, pool.bytes(id))
      slots[count] = id
      unsafe pulls.receiveMessage(
        RingFile(descriptor), headers.pointer + count, flags: UInt32(MSG_DONTWAIT),
        token: Token(owner: 0, kind: Kind.receive, value: count))
      count += 1
    }
    guard count > 0 else { return false }
    pulls.submit()
    var isEmpty = false
    while let completion = pulls.nextCompletion() {
      let slot = completion.token.value
      guard completion.result >= 0 else {
        // Errors of earlier sends surface here too; only an empty socket is one that will speak up again.
        if completion.result == -EAGAIN { isEmpty = true }
        pool.release(slots[slot])
        continue
      }
      pulled.append(
        message(
          slots[slot], unsafe ReceivedMessage.Lengths(headers.pointer + slot, payload: Int(completion.result))))
    }
    return isEmpty
  }

  var pulledCount: Int { pulled.count }
  func pulledMessage(_ index: Int) -> Message { pulled[index] }
}

/// Memory in which records are laid out for sending: one for the whole relay.
@safe struct StreamSpace: ~Copyable {
  static let bytes = 512 << 10
  private let memory = FixedArray<UInt8>(repeating: 0, count: StreamSpace.bytes)

  var output: PacketBytes { unsafe PacketBytes(UnsafeMutableRawPointer(memory.pointer), count: StreamSpace.bytes) }
}
