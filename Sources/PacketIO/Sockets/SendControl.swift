import CLinux
import Glibc

/// What a send says beside the bytes, as CMSG_SPACE lays it out: the traffic class, left out where it is zero, and the
/// segment size (UDP_SEGMENT), left out for a single datagram.
package struct SendControl: BitwiseCopyable {
  private static let messageLength = 24
  private var classLength: UInt64 = 20
  private var classLevel: Int32 = 0
  private var classType: Int32 = 0
  private var trafficClass: Int32 = 0
  private var classPadding: UInt32 = 0
  private var sizeLength: UInt64 = 18
  private var sizeLevel = Int32(CULVERT_SOL_UDP)
  private var sizeType = Int32(CULVERT_UDP_SEGMENT)
  private var segmentSize: UInt16 = 0
  private var sizePadding: (UInt16, UInt32) = (0, 0)

  package init() {}

  /// Whether a train was refused because it cannot be cut: the route's device cannot complete checksums (EIO), or there are
  /// too many datagrams for the kernel (EINVAL). Then they may go in smaller pieces.
  package static func cannotSegment(_ error: Int32) -> Bool { error == EIO || error == EINVAL }

  /// Lays out the header, a `struct msghdr`, of a send to `name`. All that it points to must stay where it is until the completion.
  ///
  /// - Parameters:
  ///   - control: where the control data is kept.
  ///   - vectors: `count` pieces of what is sent, each a `struct iovec`.
  ///   - segmentSize: bytes of each datagram; nil: it is one.
  @unsafe package static func fill(
    _ header: UnsafeMutableRawPointer, to name: UnsafeMutablePointer<SocketName>,
    _ control: UnsafeMutablePointer<SendControl>, _ vectors: UnsafeMutableRawPointer, count: Int, segmentSize: Int?,
    trafficClass: UInt8
  ) {
    let header = unsafe header.assumingMemoryBound(to: msghdr.self)
    unsafe header.pointee = msghdr()
    unsafe header.pointee.msg_name = UnsafeMutableRawPointer(name)
    unsafe header.pointee.msg_namelen = name.pointee.length
    unsafe header.pointee.msg_iov = vectors.assumingMemoryBound(to: iovec.self)
    unsafe header.pointee.msg_iovlen = count
    let skipped = trafficClass == 0 ? messageLength : 0
    let end = segmentSize == nil ? messageLength : 2 * messageLength
    guard end > skipped else { return }
    let isV4 = unsafe name.pointee.isV4
    unsafe control.pointee.segmentSize = UInt16(truncatingIfNeeded: segmentSize ?? 0)
    unsafe control.pointee.trafficClass = Int32(trafficClass)
    unsafe control.pointee.classLevel = Int32(isV4 ? IPPROTO_IP : IPPROTO_IPV6)
    unsafe control.pointee.classType = isV4 ? IP_TOS : IPV6_TCLASS
    unsafe header.pointee.msg_control = UnsafeMutableRawPointer(control) + skipped
    unsafe header.pointee.msg_controllen = end - skipped
  }
}
