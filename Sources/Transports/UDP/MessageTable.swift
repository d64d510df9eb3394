import CLinux
import Glibc
import PacketIO

/// The kernel's view of the sends in flight: message header, address, gather entry and GSO size of each, at
/// addresses that stay put until the completion.
@safe struct MessageTable: ~Copyable {
  /// Two control messages as CMSG_SPACE lays them out: the traffic class, left out where it is zero, and the segment
  /// size, left out for a single datagram.
  struct Control: BitwiseCopyable {
    static let messageLength = 24
    var classLength: UInt64 = 20
    var classLevel: Int32 = 0
    var classType: Int32 = 0
    var trafficClass: Int32 = 0
    var classPadding: UInt32 = 0
    var sizeLength: UInt64 = 18
    var sizeLevel = Int32(CULVERT_SOL_UDP)
    var sizeType = Int32(CULVERT_UDP_SEGMENT)
    var segmentSize: UInt16 = 0
    var sizePadding: (UInt16, UInt32) = (0, 0)
  }

  private var trains: FixedArray<Superpacket>
  private var headers: FixedArray<msghdr>
  private var vectors: FixedArray<iovec>
  private var names: FixedArray<SocketName>
  private var controls: FixedArray<Control>
  private var free: FixedArray<Int32>

  init(capacity: Int) {
    let nothing = Superpacket(buffer: 0, offset: 0, length: 0, segmentSize: 1)
    trains = FixedArray(repeating: nothing, count: capacity)
    unsafe headers = FixedArray(repeating: msghdr(), count: capacity)
    unsafe vectors = FixedArray(repeating: iovec(), count: capacity)
    names = FixedArray(repeating: SocketName(Path.none.endpoint), count: capacity)
    controls = FixedArray(repeating: Control(), count: capacity)
    free = FixedArray(capacity: capacity)
    for index in stride(from: capacity - 1, through: 0, by: -1) { free.append(Int32(index)) }
  }

  /// A free entry, which now remembers `train`; nil when all are in flight.
  mutating func take(_ train: Superpacket) -> Int? {
    guard let index = free.popLast() else { return nil }
    trains[Int(index)] = train
    return Int(index)
  }

  /// Frees an entry and returns what it remembered.
  mutating func give(_ index: Int) -> Superpacket {
    free.append(Int32(index))
    return trains[index]
  }

  @unsafe mutating func fill(_ index: Int, _ train: Superpacket, pool: BufferPool) {
    let bytes = train.bytes(in: pool)
    unsafe vectors[index] = iovec(iov_base: bytes.pointer, iov_len: bytes.count)
    names[index] = SocketName(train.path.endpoint)
    var header = unsafe msghdr()
    unsafe header.msg_name = UnsafeMutableRawPointer(names.pointer + index)
    unsafe header.msg_namelen = names[index].length
    unsafe header.msg_iov = vectors.pointer + index
    unsafe header.msg_iovlen = 1
    let isV4 = train.path.endpoint.address.isV4
    controls[index].segmentSize = UInt16(truncatingIfNeeded: train.segmentSize)
    controls[index].trafficClass = Int32(train.trafficClass)
    controls[index].classLevel = Int32(isV4 ? IPPROTO_IP : IPPROTO_IPV6)
    controls[index].classType = isV4 ? IP_TOS : IPV6_TCLASS
    let skipped = train.trafficClass == 0 ? Control.messageLength : 0
    let end = train.length > train.segmentSize ? 2 * Control.messageLength : Control.messageLength
    if end > skipped {
      unsafe header.msg_control = UnsafeMutableRawPointer(controls.pointer + index) + skipped
      unsafe header.msg_controllen = end - skipped
    }
    unsafe headers[index] = header
  }

  @unsafe func pointer(_ index: Int) -> UnsafePointer<msghdr> { unsafe UnsafePointer(headers.pointer + index) }
}
