import CLinux
import Glibc
import PacketIO

/// The proxy's ring, and the buffers that all its sockets share.
///
/// What a socket holds while nothing comes is one request in the kernel: a multishot receive that takes a buffer when
/// something has arrived, a multishot accept, or a poll. A side whose bandwidth is limited is polled, and read with
/// `pull` when its turn has come, so that what it may not send yet waits in its socket. So are all where the kernel has
/// no multishot receive.
@safe struct HairpinIO: ~Copyable {
  /// What a completion is about; `Token.kind`.
  enum Kind {
    static let control: UInt8 = 1
    static let controlReadable: UInt8 = 2
    static let listener: UInt8 = 3
    static let receive: UInt8 = 4
    static let accept: UInt8 = 5
    static let stranger: UInt8 = 6
    static let readable: UInt8 = 7
    static let writable: UInt8 = 8
    static let send: UInt8 = 9
    static let wake: UInt8 = 10
    static let cancelled: UInt8 = 11
  }

  /// One received message; whoever took it holds the buffer.
  struct Message: BitwiseCopyable {
    var buffer: BufferID
    var bytes: PacketBytes
    var segmentSize: Int
    var trafficClass: UInt8
    var isTruncated: Bool
    /// The sender's `sockaddr`.
    var name: PacketBytes
  }

  /// Messages of one `pull` at most.
  static let pullCapacity = 64
  private static let entries: UInt32 = 1024
  /// Buffers of which the kernel may choose; and all, with those on their way out and for streams.
  private static let heldBuffers = 128
  private static let poolBuffers = 384
  /// Layout of `struct io_uring_recvmsg_out` with the sender's address and the control data behind it.
  private static let outLength = 16
  private static let nameCapacity = 32
  private static let controlCapacity = 72
  private static let front = outLength + nameCapacity + controlCapacity

  var ring: Ring
  let pool = BufferPool(count: HairpinIO.poolBuffers)
  private let buffers: BufferRing?
  /// Lengths for multishot receives, at an address that stays.
  private var lengths: FixedArray<msghdr>
  /// For `pull` alone, so that all its completions are there when the submission returns.
  private var pulls: Ring
  private var headers: FixedArray<msghdr>
  private var vectors: FixedArray<iovec>
  private var pulled = FixedArray<Message>(capacity: HairpinIO.pullCapacity)
  private var slots: FixedArray<BufferID>

  init(allowed: RingFeatures = .all) throws(SystemError) {
    var ring = try Ring(entries: HairpinIO.entries, allowed: allowed)
    let pulls = try Ring(entries: UInt32(HairpinIO.pullCapacity), allowed: allowed)
    buffers =
      ring.features.contains(.multishotReceive)
      ? BufferRing(&ring, group: 0, capacity: HairpinIO.heldBuffers) : nil
    self.ring = ring
    self.pulls = pulls
    unsafe lengths = FixedArray(repeating: msghdr(), count: 1)
    unsafe headers = FixedArray(repeating: msghdr(), count: HairpinIO.pullCapacity)
    unsafe vectors = FixedArray(repeating: iovec(), count: HairpinIO.pullCapacity)
    slots = FixedArray(repeating: 0, count: HairpinIO.pullCapacity)
    unsafe lengths[0].msg_namelen = UInt32(HairpinIO.nameCapacity)
    unsafe lengths[0].msg_controllen = HairpinIO.controlCapacity
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
      let bytes = pool.bytes(id)
      unsafe buffers.offer(id, bytes.pointer, count: bytes.count)
    }
  }

  // MARK: Requests

  /// Has messages of a socket handed over until that ends by itself or is cancelled.
  mutating func receive(_ descriptor: Int32, token: Token) {
    unsafe ring.receiveMessageMultishot(RingFile(descriptor), lengths.pointer, group: 0, token: token)
  }

  mutating func accept(_ descriptor: Int32, token: Token) {
    ring.accept(RingFile(descriptor), multishot: ring.features.contains(.multishotReceive), token: token)
  }

  mutating func pollReadable(_ descriptor: Int32, token: Token) {
    ring.pollReadable(RingFile(descriptor), token: token)
  }

  mutating func pollWritable(_ descriptor: Int32, token: Token) {
    ring.pollWritable(RingFile(descriptor), token: token)
  }

  mutating func cancel(_ token: Token) { ring.cancel(token, token: Token(owner: 0, kind: Kind.cancelled)) }

  // MARK: Messages

  /// What a completion of `receive` brought, if anything; the caller owns the buffer.
  func message(_ completion: Completion) -> Message? {
    guard let id = completion.buffer, let buffers else { return nil }
    buffers.taken()
    let length = Int(completion.result) - HairpinIO.front
    guard length >= 0 else {
      pool.release(id)
      return nil
    }
    let bytes = pool.bytes(id)
    return message(
      id, length: length, nameLength: Int(bytes.loadNative(0, as: UInt32.self)),
      controlLength: Int(bytes.loadNative(4, as: UInt32.self)), flags: bytes.loadNative(12, as: UInt32.self))
  }

  private func message(
    _ id: BufferID, length: Int, nameLength: Int, controlLength: Int, flags: UInt32
  ) -> Message {
    let bytes = pool.bytes(id)
    let control = bytes.slice(
      HairpinIO.outLength + HairpinIO.nameCapacity, min(controlLength, HairpinIO.controlCapacity))
    let ancillary = UDPLink.ancillary(control)
    return Message(
      buffer: id, bytes: bytes.slice(HairpinIO.front, length), segmentSize: max(ancillary.segmentSize ?? length, 1),
      trafficClass: ancillary.trafficClass, isTruncated: flags & UInt32(MSG_TRUNC) != 0,
      name: bytes.slice(HairpinIO.outLength, min(nameLength, HairpinIO.nameCapacity)))
  }

  /// Takes up to `limit` messages that wait in a socket, `pullCapacity` at most.
  ///
  /// - Returns: whether the socket has nothing more. `takePulled` then gives the messages, in order.
  mutating func pull(_ descriptor: Int32, limit: Int) -> Bool {
    pulled.removeAll()
    var count = 0
    while count < min(limit, HairpinIO.pullCapacity), let id = pool.take() {
      let base = unsafe pool.bytes(id).pointer
      unsafe vectors[count] = iovec(iov_base: base + HairpinIO.front, iov_len: BufferPool.bufferSize - HairpinIO.front)
      var header = unsafe msghdr()
      unsafe header.msg_name = base + HairpinIO.outLength
      unsafe header.msg_namelen = UInt32(HairpinIO.nameCapacity)
      unsafe header.msg_control = base + HairpinIO.outLength + HairpinIO.nameCapacity
      unsafe header.msg_controllen = HairpinIO.controlCapacity
      unsafe header.msg_iov = vectors.pointer + count
      unsafe header.msg_iovlen = 1
      unsafe headers[count] = header
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
        unsafe message(
          slots[slot], length: Int(completion.result), nameLength: Int(headers[slot].msg_namelen),
          controlLength: Int(headers[slot].msg_controllen), flags: UInt32(bitPattern: headers[slot].msg_flags)))
    }
    return isEmpty
  }

  var pulledCount: Int { pulled.count }
  func pulledMessage(_ index: Int) -> Message { pulled[index] }
}
