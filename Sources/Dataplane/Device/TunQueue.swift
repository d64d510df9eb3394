import CLinux
import Glibc
package import PacketIO

/// One queue of a TUN device on a worker's ring: superpackets in, gathered writes out.
@safe package final class TunQueue {
  private enum Kind: UInt8 {
    case read, write
    case cancellation = 0xFF
  }

  /// What completions of this queue carry.
  package let owner: UInt8
  private let receiver: Receiver
  /// Gather lists of the writes in flight. TUN writes complete within their submission, so both lists are
  /// emptied together, when nothing is in flight.
  private var vectors: FixedArray<iovec>
  private var buffers: FixedArray<BufferID>
  private var inFlight = 0
  /// Whether writes are under way, and how many more pieces of packets can be.
  package var isWriting: Bool { inFlight > 0 }
  package var room: Int { unsafe vectors.capacity - vectors.count }

  /// Written to the device, and refused by it.
  package private(set) var delivered = TrafficCount()
  package private(set) var refused: UInt64 = 0
  /// The errno of the read that failed for good, as when the device was deleted.
  package private(set) var failure: Int32?

  /// - Parameter capacity: packets of an inbound batch at most.
  package init(_ descriptor: Int32, capacity: Int, readBuffers: Int, io: inout WorkerIO) {
    owner = io.claimOwner()
    unsafe vectors = FixedArray(capacity: capacity)
    buffers = FixedArray(capacity: capacity)
    receiver = Receiver(
      descriptor, kind: .stream, group: io.claimBufferGroup(), capacity: readBuffers,
      token: Token(owner: owner, kind: Kind.read), io: &io)
    receiver.rearm(io: &io)
  }

  /// Whether a completion of this queue ends a write.
  package func isWrite(_ completion: Completion) -> Bool { completion.token.kind == Kind.write.rawValue }

  /// Takes a completion that carries this queue's owner number; what was read is appended to `batch`, which has room.
  package func complete(_ completion: Completion, io: inout WorkerIO, batch: inout PacketBatch) {
    guard let kind = Kind(rawValue: completion.token.kind) else { return }
    switch kind {
    case .write: completeWrite(completion, pool: io.pool)
    case .read:
      var error: Int32 = 0
      if let received = receiver.accept(completion, io: &io, error: &error) {
        accept(received, pool: io.pool, batch: &batch)
      }
      if error != 0 { failure = error }
    case .cancellation: break
    }
  }

  private func accept(_ received: Receiver.Received, pool: BufferPool, batch: inout PacketBatch) {
    let bytes = pool.bytes(received.buffer).slice(received.offset, received.length)
    let length = received.length - VirtioNetHeader.length
    guard length > 0, let header = VirtioNetHeader.parse(bytes) else {
      pool.release(received.buffer)
      return
    }
    let superpacket = Superpacket(
      buffer: received.buffer, offset: received.offset + VirtioNetHeader.length, length: length,
      segmentSize: header.offload.segmentation == .none ? length : header.gsoSize, offload: header.offload)
    // Full only when the worker stops, and nobody takes any more.
    if !batch.tryAppend(superpacket) { pool.release(received.buffer) }
  }

  private func completeWrite(_ completion: Completion, pool: BufferPool) {
    let packets = completion.token.value & 0xFFFF
    if completion.result >= 0 {
      delivered.add(packets: packets, bytes: completion.token.value >> 16)
    } else {
      refused &+= UInt64(packets)
    }
    inFlight -= 1
    guard inFlight == 0 else { return }
    for index in 0..<buffers.count { pool.release(buffers[index]) }
    buffers.removeAll()
    unsafe vectors.removeAll()
  }

  /// Writes the coalescer's deliveries, taking over their slices' references, and empties it.
  package func send(_ coalescer: inout Coalescer, io: inout WorkerIO) {
    for index in 0..<coalescer.deliveries.count {
      let delivery = coalescer.deliveries[index]
      guard unsafe vectors.capacity - vectors.count >= Int(delivery.sliceCount) else {
        refused &+= UInt64(delivery.packets)
        drop(delivery, coalescer, pool: io.pool)
        continue
      }
      let firstVector = unsafe vectors.count
      var slice = delivery.firstSlice
      var isFirst = true
      while slice >= 0 {
        let piece = coalescer.slices[Int(slice)]
        var bytes = io.pool.bytes(piece.buffer)
        if isFirst {
          // In front of the packet lies what is left of its ESP header.
          bytes = bytes.slice(
            Int(piece.offset) - VirtioNetHeader.length, Int(piece.length) + VirtioNetHeader.length)
          VirtioNetHeader.write(
            delivery.offload, gsoSize: delivery.packets > 1 ? Int(delivery.segmentSize) : 0,
            headerLength: delivery.packets > 1 ? Int(delivery.headerLength) : 0, to: bytes)
          isFirst = false
        } else {
          bytes = bytes.slice(Int(piece.offset), Int(piece.length))
        }
        unsafe vectors.append(iovec(iov_base: bytes.pointer, iov_len: bytes.count))
        buffers.append(piece.buffer)
        slice = piece.next
      }
      let bytes = Int(delivery.length) + Int(delivery.packets - 1) * Int(delivery.headerLength)
      unsafe io.ring.writeVector(
        receiver.file, vectors.pointer + firstVector, count: vectors.count - firstVector,
        token: Token(owner: owner, kind: Kind.write, value: Int(delivery.packets) | bytes << 16))
      inFlight += 1
    }
    coalescer.removeAll()
  }

  /// Writes single packets, taking over their references. They count as delivered to nobody: we made them.
  package func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count {
      let packet = batch[index]
      guard unsafe !vectors.isFull else {
        io.pool.release(packet.buffer)
        continue
      }
      let bytes = io.pool.bytes(packet.buffer).slice(
        Int(packet.offset) - VirtioNetHeader.length, Int(packet.length) + VirtioNetHeader.length)
      VirtioNetHeader.write(Offload(), gsoSize: 0, headerLength: 0, to: bytes)
      unsafe vectors.append(iovec(iov_base: bytes.pointer, iov_len: bytes.count))
      buffers.append(packet.buffer)
      unsafe io.ring.writeVector(
        receiver.file, vectors.pointer + vectors.count - 1, count: 1, token: Token(owner: owner, kind: Kind.write))
      inFlight += 1
    }
    batch.removeAll()
  }

  private func drop(_ delivery: Delivery, _ coalescer: borrowing Coalescer, pool: BufferPool) {
    var slice = delivery.firstSlice
    while slice >= 0 {
      pool.release(coalescer.slices[Int(slice)].buffer)
      slice = coalescer.slices[Int(slice)].next
    }
  }

  package func endTurn(io: inout WorkerIO) {
    if failure == nil { receiver.rearm(io: &io) }
  }

  /// Ends the reads; the descriptor stays the device's.
  package func close(io: inout WorkerIO) { receiver.close(io: &io) }
}
