import CLiburing
import Glibc

/// Whose completion it is: the owner (a TUN device, a transport), what it asked for, and a number of its own.
@frozen public struct Token: Hashable, Sendable, BitwiseCopyable {
  public let raw: UInt64

  @inlinable public init(raw: UInt64) { self.raw = raw }
  /// - Parameter value: 48 bits, free for the owner.
  @inlinable public init(owner: UInt8, kind: UInt8, value: Int = 0) {
    raw = UInt64(owner) << 56 | UInt64(kind) << 48 | UInt64(truncatingIfNeeded: value) & 0xFFFF_FFFF_FFFF
  }
  /// The same with a kind that the owner has named; its enumeration has a case for each number it submits.
  @inlinable public init<Kind: RawRepresentable>(owner: UInt8, kind: Kind, value: Int = 0)
  where Kind.RawValue == UInt8 {
    self.init(owner: owner, kind: kind.rawValue, value: value)
  }
  /// The kind of the cancellation that `Receiver.close` submits.
  @inlinable public static var cancellation: UInt8 { 0xFF }
  @inlinable public var owner: UInt8 { UInt8(truncatingIfNeeded: raw >> 56) }
  @inlinable public var kind: UInt8 { UInt8(truncatingIfNeeded: raw >> 48) }
  @inlinable public var value: Int { Int(raw & 0xFFFF_FFFF_FFFF) }
}

/// What the kernel answered to one submission.
@frozen public struct Completion: Sendable, BitwiseCopyable {
  public let token: Token
  /// Bytes or another non-negative result, or a negated errno.
  public let result: Int32
  public let flags: UInt32

  @inlinable public init(token: Token, result: Int32, flags: UInt32 = 0) {
    self.token = token
    self.result = result
    self.flags = flags
  }
  /// The submission stays armed and will complete again.
  @inlinable public var more: Bool { flags & 2 != 0 }
  /// The buffer the kernel chose from a `BufferRing`.
  @inlinable public var buffer: BufferID? { flags & 1 != 0 ? BufferID(truncatingIfNeeded: flags >> 16) : nil }
}

/// What the running kernel's io_uring can do. A missing feature costs speed, never function: whoever uses the
/// ring asks here and takes the plainer operation.
public struct RingFeatures: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Completions are run by the waiting thread alone (Linux 6.1).
  public static let deferredTaskRun = RingFeatures(rawValue: 1)
  /// The kernel picks receive buffers from a shared ring (Linux 5.19).
  public static let bufferRings = RingFeatures(rawValue: 2)
  /// One submission receives many datagrams (Linux 6.0).
  public static let multishotReceive = RingFeatures(rawValue: 4)
  /// One submission reads a TUN device many times (Linux 6.7).
  public static let multishotRead = RingFeatures(rawValue: 8)
  /// Descriptors are looked up once and not at each submission (Linux 5.5).
  public static let registeredFiles = RingFeatures(rawValue: 16)
  /// A ring completes something on another one (Linux 5.18).
  public static let messages = RingFeatures(rawValue: 32)
  public static let all: RingFeatures = [
    .deferredTaskRun, .bufferRings, .multishotReceive, .multishotRead, .registeredFiles, .messages,
  ]
}

/// A descriptor as a ring knows it: by its place in the ring's table of registered files, where it has one.
@frozen public struct RingFile: Hashable, Sendable, BitwiseCopyable {
  public let descriptor: Int32
  let slot: Int32?

  /// A descriptor that is not registered.
  public init(_ descriptor: Int32) {
    self.descriptor = descriptor
    slot = nil
  }

  init(_ descriptor: Int32, slot: Int32) {
    self.descriptor = descriptor
    self.slot = slot
  }
}

/// An io_uring: one thread submits and completes on it, the one that calls `activate`. Another may set it up before.
@safe public struct Ring: ~Copyable {
  /// Files that can be registered: a TUN queue and two sockets for each of sixteen transports.
  private static let fileCapacity = 64

  private var ring: UnsafeMutablePointer<io_uring>
  public let features: RingFeatures
  private var freeSlots: [Int32] = []

  /// - Parameters:
  ///   - entries: submissions that fit between two waits; a power of two.
  ///   - allowed: features to use where the kernel has them; a test narrows this to see an older kernel.
  /// - Throws: `SystemError` when the kernel has no io_uring or forbids it.
  public init(entries: UInt32, allowed: RingFeatures = .all) throws(SystemError) {
    unsafe ring = .allocate(capacity: 1)
    unsafe ring.initialize(to: io_uring())
    var found: RingFeatures = []
    var status: Int32 = -EINVAL
    if allowed.contains(.deferredTaskRun) {
      status = unsafe Ring.setUp(
        ring, entries,
        flags: IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP)
      if status == 0 { found.insert(.deferredTaskRun) }
    }
    if status == -EINVAL {
      status = unsafe Ring.setUp(ring, entries, flags: IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CLAMP)
    }
    if status == -EINVAL { status = unsafe Ring.setUp(ring, entries, flags: IORING_SETUP_CLAMP) }
    guard status == 0 else {
      unsafe ring.deallocate()
      throw SystemError("io_uring_setup", errno: -status, remedy: Ring.remedy(-status))
    }
    if allowed.contains(.bufferRings), let probe = unsafe io_uring_get_probe_ring(ring) {
      if let test = unsafe BufferRing.register(ring, group: 0xFFFF, entries: 8) {
        unsafe io_uring_unregister_buf_ring(ring, 0xFFFF)
        unsafe test.deallocate()
        found.insert(.bufferRings)
        // Multishot receive came one release after buffer rings and has no probe of its own; SEND_ZC is its
        // contemporary.
        if unsafe io_uring_opcode_supported(probe, Int32(IORING_OP_SEND_ZC.rawValue)) != 0 {
          found.insert(.multishotReceive)
        }
        if unsafe io_uring_opcode_supported(probe, Int32(CULVERT_OP_READ_MULTISHOT)) != 0 {
          found.insert(.multishotRead)
        }
      }
      unsafe io_uring_free_probe(probe)
    }
    if allowed.contains(.messages), let probe = unsafe io_uring_get_probe_ring(ring) {
      if unsafe io_uring_opcode_supported(probe, Int32(IORING_OP_MSG_RING.rawValue)) != 0 { found.insert(.messages) }
      unsafe io_uring_free_probe(probe)
    }
    if allowed.contains(.registeredFiles) {
      let empty = [Int32](repeating: -1, count: Ring.fileCapacity)
      if unsafe io_uring_register_files(ring, empty, UInt32(empty.count)) == 0 {
        found.insert(.registeredFiles)
        freeSlots = (0..<Int32(Ring.fileCapacity)).reversed()
      }
    }
    features = found.intersection(allowed)
  }

  deinit {
    unsafe io_uring_queue_exit(ring)
    unsafe ring.deallocate()
  }

  /// Binds the ring to the calling thread; submissions prepared before go out with the first wait.
  public mutating func activate() {
    if features.contains(.deferredTaskRun) { _ = unsafe culvert_enable_rings(ring) }
  }

  /// Registers a descriptor, so that submissions need not look it up. Where the kernel cannot, or the table is full,
  /// it is used as it is.
  public mutating func attach(_ descriptor: Int32) -> RingFile {
    guard descriptor >= 0, let slot = freeSlots.popLast() else { return RingFile(descriptor) }
    var value = descriptor
    guard unsafe io_uring_register_files_update(ring, UInt32(slot), &value, 1) == 1 else {
      freeSlots.append(slot)
      return RingFile(descriptor)
    }
    return RingFile(descriptor, slot: slot)
  }

  /// Lets go of a registered descriptor; without this its file would stay open as long as the ring.
  public mutating func detach(_ file: RingFile) {
    guard let slot = file.slot else { return }
    var none: Int32 = -1
    unsafe io_uring_register_files_update(ring, UInt32(slot), &none, 1)
    freeSlots.append(slot)
  }

  /// What another ring's messages are sent to; valid while the ring is.
  public var descriptor: Int32 { unsafe ring.pointee.ring_fd }

  private static func setUp(_ ring: UnsafeMutablePointer<io_uring>, _ entries: UInt32, flags: UInt32) -> Int32 {
    var parameters = io_uring_params()
    parameters.flags = flags | IORING_SETUP_CQSIZE
    parameters.cq_entries = entries * 4
    return unsafe io_uring_queue_init_params(entries, ring, &parameters)
  }

  private static func remedy(_ code: Int32) -> String {
    switch code {
    case ENOSYS: "the kernel has no io_uring: Linux 5.15 or newer is needed, 6.7 or newer is fastest"
    case EPERM:
      "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled to 0, or allow it in the container's seccomp profile"
    case ENOMEM: "raise the limit of locked memory (ulimit -l)"
    default: "Linux 5.15 or newer is needed"
    }
  }
}

// MARK: - Submitting

extension Ring {
  /// Room for one more submission; when the queue is full, what is there is handed to the kernel first.
  private mutating func next() -> UnsafeMutablePointer<io_uring_sqe> {
    if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
    while true {
      unsafe io_uring_submit(ring)
      if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
    }
  }

  private mutating func finish(
    _ entry: UnsafeMutablePointer<io_uring_sqe>, _ token: Token, _ file: RingFile? = nil
  ) {
    unsafe io_uring_sqe_set_data64(entry, token.raw)
    if let slot = file?.slot {
      unsafe entry.pointee.fd = slot
      unsafe culvert_use_fixed_file(entry)
    }
  }

  /// Reads once. `buffer` must stay valid until the completion.
  @unsafe public mutating func read(_ file: RingFile, into buffer: UnsafeMutableRawPointer, count: Int, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_read(entry, file.descriptor, buffer, UInt32(count), UInt64.max)
    unsafe finish(entry, token, file)
  }

  /// Reads a counter or a timer once. The cell must be there until the completion.
  package mutating func readCounter(_ file: RingFile, into cell: StateReference<UInt64>, token: Token) {
    unsafe read(file, into: cell.pointer, count: MemoryLayout<UInt64>.size, token: token)
  }

  /// Reads again and again, each time into a buffer of `group`, until the group runs dry.
  public mutating func readMultishot(_ file: RingFile, group: UInt16, token: Token) {
    let entry = unsafe next()
    unsafe culvert_prep_read_multishot(entry, file.descriptor, group)
    unsafe finish(entry, token, file)
  }

  /// `vectors`: `count` of `struct iovec`, which must stay valid until the completion.
  @unsafe public mutating func writeVector(_ file: RingFile, _ vectors: UnsafeRawPointer, count: Int, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_writev(
      entry, file.descriptor, vectors.assumingMemoryBound(to: iovec.self), UInt32(count), UInt64.max)
    unsafe finish(entry, token, file)
  }

  /// `message`: a `struct msghdr`, which with all it points to must stay valid until the completion.
  /// `flags`: as `recvmsg` takes them; with MSG_DONTWAIT it completes with the submission.
  @unsafe public mutating func receiveMessage(
    _ file: RingFile, _ message: UnsafeMutableRawPointer, flags: UInt32 = 0, token: Token
  ) {
    let entry = unsafe next()
    unsafe io_uring_prep_recvmsg(entry, file.descriptor, message.assumingMemoryBound(to: msghdr.self), flags)
    unsafe finish(entry, token, file)
  }

  /// `message`: a `struct msghdr`, of which only the lengths are used; it must stay valid until the submission.
  @unsafe public mutating func receiveMessageMultishot(
    _ file: RingFile, _ message: UnsafeMutableRawPointer, group: UInt16, token: Token
  ) {
    let entry = unsafe next()
    unsafe io_uring_prep_recvmsg_multishot(entry, file.descriptor, message.assumingMemoryBound(to: msghdr.self), 0)
    unsafe culvert_select_buffer(entry, group)
    unsafe finish(entry, token, file)
  }

  /// - Parameters:
  ///   - message: a `struct msghdr`, which must stay valid until the completion with all it points to; header and
  ///     gather list only until the submission where the descriptor is a stream.
  ///   - flags: as `sendmsg` takes them.
  @unsafe public mutating func sendMessage(
    _ file: RingFile, _ message: UnsafeRawPointer, flags: UInt32 = 0, token: Token
  ) {
    let entry = unsafe next()
    unsafe io_uring_prep_sendmsg(entry, file.descriptor, message.assumingMemoryBound(to: msghdr.self), flags)
    unsafe finish(entry, token, file)
  }

  /// Completes something under `message` on the ring of that descriptor, and under `token` on this one.
  public mutating func send(_ message: Token, to descriptor: Int32, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_msg_ring(entry, descriptor, 0, message.raw, 0)
    unsafe finish(entry, token)
  }

  /// Cancels the submission that carries `target`; both complete.
  public mutating func cancel(_ target: Token, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_cancel64(entry, target.raw, 0)
    unsafe finish(entry, token)
  }
}

// MARK: - Streams

extension Ring {
  /// Accepts connections: each completion brings a descriptor. With `multishot` (Linux 5.19, so where there is
  /// `RingFeatures.multishotReceive`) again and again, else once.
  public mutating func accept(_ file: RingFile, multishot: Bool, token: Token) {
    let entry = unsafe next()
    if multishot {
      unsafe io_uring_prep_multishot_accept(entry, file.descriptor, nil, nil, Ring.closeOnExecute)
    } else {
      unsafe io_uring_prep_accept(entry, file.descriptor, nil, nil, Ring.closeOnExecute)
    }
    unsafe finish(entry, token, file)
  }

  /// Connects; `address`, a `struct sockaddr` of `length` bytes, must stay valid until the submission.
  @unsafe public mutating func connect(_ file: RingFile, _ address: UnsafeRawPointer, length: UInt32, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_connect(entry, file.descriptor, address.assumingMemoryBound(to: sockaddr.self), length)
    unsafe finish(entry, token, file)
  }

  /// Receives from a stream again and again, each time into a buffer of `group`, until the group runs dry, the stream
  /// ends or fails. No buffer is taken before there is something to receive.
  public mutating func receiveMultishot(_ file: RingFile, group: UInt16, token: Token) {
    let entry = unsafe next()
    unsafe culvert_prep_receive_multishot(entry, file.descriptor, group)
    unsafe finish(entry, token, file)
  }

  /// Completes once, when something can be read or the stream has ended.
  public mutating func pollReadable(_ file: RingFile, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_poll_add(entry, file.descriptor, Ring.readable)
    unsafe finish(entry, token, file)
  }

  /// Completes once, when something can be written or the stream has ended.
  public mutating func pollWritable(_ file: RingFile, token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_poll_add(entry, file.descriptor, Ring.writable)
    unsafe finish(entry, token, file)
  }

  /// Completes without doing anything: a turn's work that goes on in the next.
  public mutating func noOperation(token: Token) {
    let entry = unsafe next()
    unsafe io_uring_prep_nop(entry)
    unsafe finish(entry, token)
  }

  /// SOCK_CLOEXEC, POLLIN and POLLOUT, which C has as an enumeration and a macro of other headers.
  private static var closeOnExecute: Int32 { 0o2000000 }
  private static var readable: UInt32 { 1 }
  private static var writable: UInt32 { 4 }
}

// MARK: - Completing

extension Ring {
  /// Hands all submissions to the kernel and waits until something completed or `nanoseconds` have passed; zero
  /// does not wait.
  public mutating func submitAndWait(nanoseconds: UInt64) {
    var entry: UnsafeMutablePointer<io_uring_cqe>? = nil
    var limit = __kernel_timespec(
      tv_sec: Int64(nanoseconds / 1_000_000_000), tv_nsec: Int64(nanoseconds % 1_000_000_000))
    if nanoseconds == 0 {
      unsafe io_uring_submit_and_get_events(ring)
    } else {
      unsafe io_uring_submit_and_wait_timeout(ring, &entry, 1, &limit, nil)
    }
  }

  /// Hands all submissions to the kernel without waiting.
  public mutating func submit() { unsafe io_uring_submit(ring) }

  /// Hands all submissions to the kernel, and lets other threads that could run do so first.
  public mutating func submitAndYield() {
    submit()
    sched_yield()
  }

  /// The next completion that is already there.
  public mutating func nextCompletion() -> Completion? {
    var entry: UnsafeMutablePointer<io_uring_cqe>? = nil
    guard unsafe io_uring_peek_cqe(ring, &entry) == 0, let found = unsafe entry else { return nil }
    let completion = unsafe Completion(
      token: Token(raw: found.pointee.user_data), result: found.pointee.res, flags: found.pointee.flags)
    unsafe io_uring_cqe_seen(ring, found)
    return completion
  }

  /// Whether completions are waiting.
  public var hasCompletions: Bool { unsafe culvert_cq_ready(ring) > 0 }
}

// MARK: - Buffer rings

/// Buffers the kernel may choose from when data arrives (IORING_REGISTER_PBUF_RING).
@safe public final class BufferRing {
  private let entries: UnsafeMutablePointer<io_uring_buf_ring>
  public let group: UInt16
  public let capacity: Int
  /// Buffers the kernel holds.
  public private(set) var held = 0

  /// - Parameter capacity: a power of two, 32768 at most.
  public init?(_ ring: inout Ring, group: UInt16, capacity: Int) {
    guard let memory = unsafe ring.registerBufferRing(group: group, entries: UInt32(capacity)) else { return nil }
    unsafe entries = unsafe memory
    self.group = group
    self.capacity = capacity
  }

  deinit { unsafe entries.deallocate() }

  /// The kernel took `1` buffer out.
  public func taken() { held -= 1 }

  /// Offers memory under the number `id`, as long as that buffer is held.
  public func offer(_ id: BufferID, _ bytes: PacketBytes) {
    unsafe io_uring_buf_ring_add(entries, bytes.pointer, UInt32(bytes.count), id, Int32(capacity - 1), 0)
    unsafe io_uring_buf_ring_advance(entries, 1)
    held += 1
  }

  fileprivate static func register(
    _ ring: UnsafeMutablePointer<io_uring>, group: UInt16, entries: UInt32
  ) -> UnsafeMutablePointer<io_uring_buf_ring>? {
    // The kernel wants whole pages.
    let bytes = max(Int(entries) * MemoryLayout<io_uring_buf>.stride, 4096)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 4096)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    var registration = io_uring_buf_reg()
    registration.ring_addr = UInt64(UInt(bitPattern: memory))
    registration.ring_entries = entries
    registration.bgid = group
    guard unsafe io_uring_register_buf_ring(ring, &registration, 0) == 0 else {
      unsafe memory.deallocate()
      return nil
    }
    let typed = unsafe memory.bindMemory(to: io_uring_buf_ring.self, capacity: 1)
    unsafe io_uring_buf_ring_init(typed)
    return unsafe typed
  }
}

extension Ring {
  fileprivate mutating func registerBufferRing(group: UInt16, entries: UInt32) -> UnsafeMutablePointer<
    io_uring_buf_ring
  >? {
    guard features.contains(.bufferRings) else { return nil }
    return unsafe BufferRing.register(ring, group: group, entries: entries)
  }
}
