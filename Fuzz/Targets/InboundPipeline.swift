import PacketIO

@testable import Dataplane

/// Everything behind the socket, with datagrams from anybody: every datagram is delivered or dropped with a reason,
/// what is delivered comes from the peer's own addresses and not from this side's, and every buffer comes back.
///
/// The first byte chooses the association; see `Tunnel`. Then come trains: two bytes of datagram size, the traffic
/// class, two bytes of length, the bytes. Where sealing is left out, all that can come from a peer who turned evil is
/// in reach.
let inboundPipeline = FuzzTarget(name: "InboundPipeline") { input in
  var input = FuzzInput(input)
  let tunnel = Tunnel(options: input.byte(), prefixes: ["10.2.0.0/16", "fd00:2::/32", "0.0.0.0/1"])
  let pool = BufferPool(count: 8)
  var batch = PacketBatch(capacity: 7)
  while !input.isEmpty, !batch.isFull {
    let size = max(input.number(), 1)
    let trafficClass = input.byte()
    let bytes = input.bytes(min(input.number(), InboundPipeline.trainSegments * size))
    guard !bytes.isEmpty, let buffer = pool.take() else { continue }
    pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    batch.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: size, path: Tunnel.path,
        trafficClass: trafficClass))
  }
  var pipeline = InboundPipeline(capacity: 1024, offloads: .all)
  var next = 0
  var delivered = 0
  while next < batch.count {
    next = pipeline.run(batch, from: next, Turn(tables: tunnel.far, pool: pool, now: Tunnel.now))
    delivered +=
      takeDeliveries(&pipeline.coalescer, pool: pool) { head in
        guard let first = InnerPacket(head) ?? InnerPacket(superpacket: head) else {
          return require(false, "a delivery is no IP packet")
        }
        let source = first.source(head)
        require(
          tunnel.prefixes.contains { $0.contains(source) }
            && !(Tunnel.own + Tunnel.special).contains { $0.contains(source) },
          "\(source) is not the peer's")
      }.packets
  }
  for index in 0..<pipeline.controls.count {
    let control = pipeline.controls[index]
    _ = pool.bytes(control.buffer).slice(Int(control.offset), Int(control.length)).array()
    pool.release(control.buffer)
  }
  // Fragments that wait for others hold what they came in.
  _ = pipeline.fragments.removeAll(pool: pool)
  let arrived = Int(pipeline.counters.arrived.packets)
  let controls = Int(pipeline.controlReceived)
  let dropped = DropReason.allCases.reduce(0) { $0 + Int(pipeline.counters.dropped($1)) }
  require(
    arrived == delivered + controls + dropped,
    "\(arrived) in, \(delivered) out, \(controls) control messages, \(dropped) dropped")
  require(pool.available == pool.count, "\(pool.count - pool.available) buffers are lost")
}

extension InnerPacket {
  /// The head of a delivery that was merged: its length covers pieces that lie elsewhere.
  fileprivate init?(superpacket head: PacketBytes) {
    var bytes = head.array()
    guard bytes.count >= 40 else { return nil }
    let length = bytes[0] >> 4 == 4 ? bytes.count : bytes.count - 40
    let field = bytes[0] >> 4 == 4 ? 2 : 4
    bytes[field] = UInt8(length >> 8)
    bytes[field + 1] = UInt8(length & 0xFF)
    var packet: InnerPacket?
    withPacketBytes(bytes) { packet = InnerPacket($0) }
    guard let packet else { return nil }
    self = packet
  }
}
