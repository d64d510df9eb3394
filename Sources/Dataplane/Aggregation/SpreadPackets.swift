import PacketIO

/// Copies of inner packets that came side by side, laid apart: the TUN queue writes a header in front of a packet, and
/// a name in a DNS message may become longer. They are small, so a copy costs less than another piece in each write.
///
/// One buffer is filled at a time, and belongs to the deliveries that lie in it.
struct SpreadPackets {
  /// Bytes in front of and behind each packet.
  private static let roomInFront = 16
  static let roomBehind = 18

  private var buffer: BufferID?
  private var used = 0

  /// Nil without a buffer.
  @inline(__always)
  mutating func copy(_ packet: PacketBytes, pool: BufferPool) -> (buffer: BufferID, offset: Int)? {
    let needed = SpreadPackets.roomInFront &+ packet.count &+ SpreadPackets.roomBehind
    if buffer == nil || used &+ needed > BufferPool.bufferSize {
      finish(pool: pool)
      guard let fresh = pool.take() else { return nil }
      buffer = fresh
    }
    guard let buffer, used &+ needed <= BufferPool.bufferSize else { return nil }
    let offset = used &+ SpreadPackets.roomInFront
    pool.bytes(buffer).copy(packet, to: offset)
    used &+= needed
    return (buffer, offset)
  }

  /// Call before the deliveries are sent.
  mutating func finish(pool: BufferPool) {
    if let buffer { pool.release(buffer) }
    buffer = nil
    used = 0
  }
}
