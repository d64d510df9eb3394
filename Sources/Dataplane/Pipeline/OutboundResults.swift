package import PacketIO

/// What the outbound pipeline makes of packets. Whoever runs it takes all of it afterwards.
package struct OutboundResults: ~Copyable {
  /// Sealed packets for the transports.
  package var trains: PacketBatch
  /// Packets for hosts inside: what senders have to be told.
  package var replies: PacketBatch
  /// Judged packets that worker 0 is to seal, each with a reference on its buffer; where there is one worker, none.
  package var judged: PacketBatch
  /// Peers whose association has few sequence numbers left, or none.
  package var exhausted: FixedArray<Int32>
  /// Peers to which a packet was dropped for want of a key; what finds no room is found again.
  package var unkeyed = FixedArray<Int32>(capacity: 16)

  /// - Parameters:
  ///   - buffers: of the pool; so many trains there can be.
  ///   - batchCapacity: superpackets of a batch at most; each can name one peer.
  package init(buffers: Int, batchCapacity: Int) {
    trains = PacketBatch(capacity: buffers)
    replies = PacketBatch(capacity: batchCapacity)
    judged = PacketBatch(capacity: batchCapacity)
    exhausted = FixedArray(capacity: batchCapacity)
  }
}
