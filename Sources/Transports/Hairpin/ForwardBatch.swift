import CLinux
import Glibc
import PacketIO

/// Datagrams, or trains of them, on their way through the proxy: received with one call, sent from where they lie
/// with one more. One for the whole proxy, because nothing stays in it longer than a turn.
@safe struct ForwardBatch: ~Copyable {
  /// Messages that one call receives.
  static let capacity = 64
  /// Runs of sealed packets that one call sends; a message with something else among them makes several.
  static let sendCapacity = 128
  private static let controlCapacity = 64

  struct ControlSpace: BitwiseCopyable {
    var a: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    var b: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  }

  /// One received message.
  struct Message: BitwiseCopyable {
    var bytes: PacketBytes
    var segmentSize: Int
    var trafficClass: UInt8
    var isTruncated: Bool
  }

  /// Sealed packets of one size, the last may be shorter, one behind the other.
  struct Run: BitwiseCopyable {
    var bytes: PacketBytes
    var segmentSize: Int
    var trafficClass: UInt8
    var packets: UInt64 { UInt64((bytes.count + segmentSize - 1) / segmentSize) }
  }

  private let pool = BufferPool(count: ForwardBatch.capacity)
  private var headers: FixedArray<culvert_mmsghdr>
  private var vectors: FixedArray<iovec>
  private var names: FixedArray<SocketName>
  private var controls: FixedArray<ControlSpace>
  private var outHeaders: FixedArray<culvert_mmsghdr>
  private var outVectors: FixedArray<iovec>
  private var outControls: FixedArray<MessageTable.Control>
  private var runs: FixedArray<Run>
  /// Where the staged runs go, at an address that stays.
  private var outName: FixedArray<SocketName>
  private(set) var staged = 0

  init() {
    for _ in 0..<ForwardBatch.capacity { _ = pool.take() }
    unsafe headers = FixedArray(repeating: culvert_mmsghdr(), count: ForwardBatch.capacity)
    unsafe vectors = FixedArray(repeating: iovec(), count: ForwardBatch.capacity)
    let nobody = SocketName(Path.none.endpoint)
    names = FixedArray(repeating: nobody, count: ForwardBatch.capacity)
    controls = FixedArray(repeating: ControlSpace(), count: ForwardBatch.capacity)
    unsafe outHeaders = FixedArray(repeating: culvert_mmsghdr(), count: ForwardBatch.sendCapacity)
    unsafe outVectors = FixedArray(repeating: iovec(), count: ForwardBatch.sendCapacity)
    outControls = FixedArray(repeating: MessageTable.Control(), count: ForwardBatch.sendCapacity)
    let nothing = Run(bytes: pool.bytes(0), segmentSize: 1, trafficClass: 0)
    runs = FixedArray(repeating: nothing, count: ForwardBatch.sendCapacity)
    outName = FixedArray(repeating: nobody, count: 1)
    for index in 0..<ForwardBatch.capacity {
      unsafe vectors[index] = iovec(iov_base: pool.bytes(BufferID(index)).pointer, iov_len: BufferPool.bufferSize)
      var header = unsafe msghdr()
      unsafe header.msg_name = UnsafeMutableRawPointer(names.pointer + index)
      unsafe header.msg_iov = vectors.pointer + index
      unsafe header.msg_iovlen = 1
      unsafe header.msg_control = UnsafeMutableRawPointer(controls.pointer + index)
      unsafe headers[index].header = header
    }
  }

  // MARK: Receiving

  /// Receives up to `limit` messages, 1 to `capacity`.
  /// - Returns: how many, or a negated errno.
  mutating func receive(_ descriptor: Int32, limit: Int) -> Int {
    for index in 0..<limit {
      unsafe headers[index].header.msg_namelen = 28
      unsafe headers[index].header.msg_controllen = ForwardBatch.controlCapacity
    }
    let count = unsafe culvert_recvmmsg(descriptor, headers.pointer, UInt32(limit), Int32(MSG_DONTWAIT))
    return count < 0 ? -Int(errno) : Int(count)
  }

  func message(_ index: Int) -> Message {
    let length = unsafe Int(headers[index].length)
    let ancillary = unsafe UDPLink.ancillary(
      PacketBytes(
        UnsafeMutableRawPointer(controls.pointer + index), count: Int(headers[index].header.msg_controllen)))
    return unsafe Message(
      bytes: pool.bytes(BufferID(index)).slice(0, length), segmentSize: max(ancillary.segmentSize ?? length, 1),
      trafficClass: ancillary.trafficClass,
      isTruncated: headers[index].header.msg_flags & Int32(MSG_TRUNC) != 0)
  }

  /// Whether message `index` came from there.
  @inline(__always) func isFrom(_ name: borrowing SocketName, _ index: Int) -> Bool { names[index].equals(name) }

  func sender(_ index: Int) -> Endpoint { names[index].endpoint }

  // MARK: Sending

  /// Puts a run behind those to be sent. The caller flushes when `isFull`.
  mutating func stage(_ bytes: PacketBytes, segmentSize: Int, trafficClass: UInt8) {
    runs[staged] = Run(bytes: bytes, segmentSize: segmentSize, trafficClass: trafficClass)
    staged += 1
  }

  /// A staged run.
  func run(_ index: Int) -> Run { runs[index] }

  var isFull: Bool { staged == ForwardBatch.sendCapacity }

  mutating func unstage() { staged = 0 }

  /// Sealed packets among what is staged.
  var stagedPackets: UInt64 { (0..<staged).reduce(0) { $0 + runs[$1].packets } }

  struct Sent: BitwiseCopyable {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    var failedPackets: UInt64 = 0
  }

  /// Sends all staged runs to `name`, each as one message. What the kernel does not take is dropped: it would wait
  /// here for a receiver that is too slow anyway.
  mutating func send(_ descriptor: Int32, to name: SocketName) -> Sent {
    outName[0] = name
    let isV4 = name.isV4
    for index in 0..<staged { unsafe fill(index, isV4: isV4) }
    var sent = Sent()
    var next = 0
    while next < staged {
      let count = unsafe culvert_sendmmsg(
        descriptor, outHeaders.pointer + next, UInt32(staged - next), Int32(MSG_DONTWAIT))
      for _ in 0..<max(count, 0) {
        sent.packets += runs[next].packets
        sent.bytes += UInt64(runs[next].bytes.count)
        next += 1
      }
      guard next < staged, count <= 0 else { continue }
      let error = errno
      if runs[next].packets > 1, error == EIO || error == EINVAL {
        unsafe sendSingly(next, descriptor, isV4: isV4, &sent)
      } else {
        sent.failedPackets += runs[next].packets
      }
      next += 1
    }
    staged = 0
    return sent
  }

  @unsafe private mutating func fill(_ index: Int, isV4: Bool) {
    let run = runs[index]
    unsafe outVectors[index] = iovec(iov_base: run.bytes.pointer, iov_len: run.bytes.count)
    var header = unsafe msghdr()
    unsafe header.msg_name = UnsafeMutableRawPointer(outName.pointer)
    unsafe header.msg_namelen = outName[0].length
    unsafe header.msg_iov = outVectors.pointer + index
    unsafe header.msg_iovlen = 1
    let isTrain = run.bytes.count > run.segmentSize
    if isTrain || run.trafficClass != 0 {
      outControls[index].segmentSize = UInt16(truncatingIfNeeded: run.segmentSize)
      outControls[index].trafficClass = Int32(run.trafficClass)
      outControls[index].classLevel = Int32(isV4 ? IPPROTO_IP : IPPROTO_IPV6)
      outControls[index].classType = isV4 ? IP_TOS : IPV6_TCLASS
      let skipped = run.trafficClass == 0 ? MessageTable.Control.messageLength : 0
      let end = isTrain ? 2 * MessageTable.Control.messageLength : MessageTable.Control.messageLength
      unsafe header.msg_control = UnsafeMutableRawPointer(outControls.pointer + index) + skipped
      unsafe header.msg_controllen = end - skipped
    }
    unsafe outHeaders[index] = culvert_mmsghdr(header: header, length: 0)
  }

  /// Where the route cannot segment, or not so many: one after the other.
  @unsafe private mutating func sendSingly(_ index: Int, _ descriptor: Int32, isV4: Bool, _ sent: inout Sent) {
    let run = runs[index]
    var offset = 0
    while offset < run.bytes.count {
      var piece = run
      piece.bytes = run.bytes.slice(offset, min(run.segmentSize, run.bytes.count - offset))
      runs[index] = piece
      unsafe fill(index, isV4: isV4)
      let count = unsafe culvert_sendmmsg(
        descriptor, outHeaders.pointer + index, 1, Int32(MSG_DONTWAIT))
      if count == 1 {
        sent.packets += 1
        sent.bytes += UInt64(piece.bytes.count)
      } else {
        sent.failedPackets += 1
      }
      offset += piece.bytes.count
    }
    runs[index] = run
  }
}
