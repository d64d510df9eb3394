/// Offload metadata of a packet that crosses a TUN device (virtio 1.2 §5.1.6); all zero elsewhere.
@frozen public struct Offload: BitwiseCopyable, Sendable, Equatable {
  /// What kind of packet the kernel cut or shall cut into segments.
  public enum Segmentation: UInt8, Sendable, BitwiseCopyable { case none = 0, tcp4 = 1, tcp6 = 4, udp = 5 }

  public var segmentation: Segmentation
  /// The transport checksum field holds the pseudo-header sum only, and the rest is to be completed from
  /// `checksumStart` on.
  public var needsChecksum: Bool
  public var checksumStart: UInt16
  public var checksumOffset: UInt16

  @inlinable public init(
    segmentation: Segmentation = .none, needsChecksum: Bool = false, checksumStart: UInt16 = 0,
    checksumOffset: UInt16 = 0
  ) {
    self.segmentation = segmentation
    self.needsChecksum = needsChecksum
    self.checksumStart = checksumStart
    self.checksumOffset = checksumOffset
  }
}

/// What travels through every stage: one packet, or many of one flow that share a buffer.
///
/// From and to a TUN device it is one IP packet whose payload is cut every `segmentSize` bytes; on a datagram
/// transport it is a train of datagrams of `segmentSize` bytes each, the last possibly shorter. From a stream it is a
/// run of records likewise, with `gap` bytes of framing between one and the next. A single packet is a superpacket of
/// one segment.
@frozen public struct Superpacket: BitwiseCopyable, Sendable {
  public var path: Path
  /// First byte within the buffer.
  public var offset: Int32
  /// Bytes in all.
  public var length: Int32
  /// Payload bytes of a TUN segment, or bytes of a datagram; 1 to 65535.
  public var segmentSize: Int32
  public var buffer: BufferID
  /// On a transport: the traffic class (TOS) byte of the outer packets, DSCP and ECN (RFC 2474, RFC 3168).
  public var trafficClass: UInt8
  /// Bytes between one segment and the next, part of `length`: 0 but for what a stream transport received.
  public var gap: UInt8
  public var offload: Offload

  @inlinable public init(
    buffer: BufferID, offset: Int, length: Int, segmentSize: Int, offload: Offload = Offload(), path: Path = .none,
    trafficClass: UInt8 = 0, gap: UInt8 = 0
  ) {
    self.buffer = buffer
    self.offset = Int32(truncatingIfNeeded: offset)
    self.length = Int32(truncatingIfNeeded: length)
    self.segmentSize = Int32(truncatingIfNeeded: segmentSize)
    self.offload = offload
    self.path = path
    self.trafficClass = trafficClass
    self.gap = gap
  }

  /// How many datagrams of a transport, or records, these are; `segmentSize` must not be 0.
  @inlinable public var datagrams: Int {
    let step = Int(segmentSize) &+ Int(gap)
    return (Int(length) &+ Int(gap) &+ step &- 1) / step
  }

  /// The datagrams of a train, or the records of a run, in order; none lies beyond `length`, whatever the sizes say.
  ///
  /// - Parameter start: where in the superpacket to begin: 0, or behind a segment's end and gap.
  @inlinable public func segments(from start: Int = 0) -> SegmentIterator {
    SegmentIterator(place: start, end: Int(length), size: max(Int(segmentSize), 1), gap: Int(gap))
  }

  /// The bytes of the superpacket inside its buffer.
  @inlinable public func bytes(in pool: BufferPool) -> PacketBytes {
    pool.bytes(buffer).slice(Int(offset), Int(length))
  }
}

/// One datagram of a train, or record of a run: where it lies in its superpacket, in bytes.
@frozen public struct Segment: BitwiseCopyable, Sendable, Equatable {
  public let start: Int
  public let length: Int

  @inlinable public init(start: Int, length: Int) {
    self.start = start
    self.length = length
  }
}

/// Cuts a superpacket of a transport into its segments; made by `Superpacket.segments`.
@frozen public struct SegmentIterator: Sequence, IteratorProtocol, BitwiseCopyable, Sendable {
  /// Where the next segment begins; from `end` on there is none.
  @usableFromInline var place: Int
  @usableFromInline let end: Int
  @usableFromInline let size: Int
  @usableFromInline let gap: Int

  /// - Parameters:
  ///   - place: where the first begins.
  ///   - end: where the last ends.
  ///   - size: bytes of each but the last, 1 or more; `gap`: bytes between one and the next.
  @inlinable package init(place: Int = 0, end: Int, size: Int, gap: Int = 0) {
    self.place = place
    self.end = end
    self.size = size
    self.gap = gap
  }

  /// The next segment; nil at the end.
  @inlinable @inline(__always) public mutating func next() -> Segment? {
    guard place < end else { return nil }
    let segment = Segment(start: place, length: Swift.min(size, end &- place))
    place &+= size &+ gap
    return segment
  }
}

/// The unit in which modules hand each other work. Each entry holds one reference on its buffer.
public typealias PacketBatch = FixedArray<Superpacket>

extension FixedArray<Superpacket> {
  /// Of all together, gaps included.
  package var bytes: Int {
    var sum = 0
    for index in 0..<count { sum += Int(self[index].length) }
    return sum
  }
}

extension Superpacket {
  /// Bytes in front of a message that are zero, where a sealed packet has its SPI (RFC 3948 §2.2).
  public static let markerLength = 4

  /// A message, one datagram, with the four zero bytes that tell it from a sealed packet, written in front of it into
  /// its buffer: `offset` must be 4 at least.
  public func marked(in pool: BufferPool) -> Superpacket {
    var message = self
    message.offset -= Int32(Superpacket.markerLength)
    message.length += Int32(Superpacket.markerLength)
    message.segmentSize = message.length
    pool.bytes(buffer).store32(0, Int(message.offset))
    return message
  }
}
