package import PacketIO

/// Inner packets that came side by side or in fragments, laid apart: the TUN queue writes a header in front of a
/// packet, and a name in a DNS message may become longer. They are small, so a copy costs less than one more piece in
/// each write.
///
/// One buffer is filled at a time, and belongs to the deliveries that lie in it.
package struct SpreadPackets {
  /// Bytes in front of and behind each packet.
  private static let roomInFront = 16
  static let roomBehind = 18

  private var buffer: BufferID?
  private var used = 0

  package init() {}

  /// Memory for a packet of `length` bytes; nil without a buffer.
  @inline(__always)
  mutating func reserve(_ length: Int, pool: BufferPool) -> (buffer: BufferID, offset: Int)? {
    let needed = SpreadPackets.roomInFront &+ length &+ SpreadPackets.roomBehind
    if buffer == nil || used &+ needed > BufferPool.bufferSize {
      finish(pool: pool)
      guard let fresh = pool.take() else { return nil }
      buffer = fresh
    }
    guard let buffer, used &+ needed <= BufferPool.bufferSize else { return nil }
    let offset = used &+ SpreadPackets.roomInFront
    used &+= needed
    return (buffer, offset)
  }

  /// Call before the deliveries are sent.
  package mutating func finish(pool: BufferPool) {
    if let buffer { pool.release(buffer) }
    buffer = nil
    used = 0
  }
}
