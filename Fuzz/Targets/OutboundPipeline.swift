import Dataplane
import PacketIO

/// Everything between the TUN device and the other end's TUN device, with packets and offload headers that a program
/// on this machine made up: what is sealed is opened at the other end, all of it and nothing else.
///
/// The first byte chooses the association; see `Tunnel`. Then come packets as a TUN device hands them over: two bytes
/// of length, a virtio-net header, the packet.
let outboundPipeline = FuzzTarget(name: "OutboundPipeline") { input in
  var input = FuzzInput(input)
  let tunnel = Tunnel(options: input.byte(), prefixes: ["0.0.0.0/0", "::/0"], own: [])
  let pool = BufferPool(count: 64)
  guard let scratch = pool.take() else { return }
  var batch = PacketBatch(capacity: 8)
  while !input.isEmpty, !batch.isFull {
    let bytes = input.bytes(input.number())
    guard bytes.count > VirtioNetHeader.length, let buffer = pool.take() else { continue }
    pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
    let read = pool.bytes(buffer).slice(BufferPool.headroom, bytes.count)
    guard let header = VirtioNetHeader.parse(read) else {
      pool.release(buffer)
      continue
    }
    let length = bytes.count - VirtioNetHeader.length
    batch.append(
      Superpacket(
        buffer: buffer, offset: BufferPool.headroom + VirtioNetHeader.length, length: length,
        segmentSize: header.offload.segmentation == .none ? length : header.gsoSize, offload: header.offload))
  }

  var results = OutboundResults(buffers: pool.count, batchCapacity: 8)
  var outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: 8)
  outbound.run(&batch, Turn(tables: tunnel.near, pool: pool, now: Tunnel.now), into: &results)
  let sealed = outbound.counters.departed
  let dropped = DropReason.allCases.reduce(0) { $0 + Int(outbound.counters.dropped($1)) }
  require(
    Int(outbound.counters.arrived.packets) == Int(sealed.packets) + dropped,
    "\(outbound.counters.arrived.packets) in, \(sealed.packets) out, \(dropped) dropped")

  for index in 0..<results.replies.count {
    let reply = results.replies[index].bytes(in: pool)
    require(InnerPacket(reply)?.length == reply.count, "a sender is told in a malformed packet")
    pool.release(results.replies[index].buffer)
  }

  var inbound = InboundPipeline(capacity: 1024, offloads: .all)
  var next = 0
  var delivered = (packets: 0, bytes: 0)
  while next < results.trains.count {
    next = inbound.run(results.trains, from: next, Turn(tables: tunnel.far, pool: pool, now: Tunnel.now))
    let taken = takeDeliveries(&inbound.coalescer, pool: pool) { _ in }
    delivered = (delivered.packets + taken.packets, delivered.bytes + taken.bytes)
  }
  require(
    delivered.packets == Int(sealed.packets) && delivered.bytes == Int(sealed.bytes),
    "sealed \(sealed), delivered \(delivered), dropped \(inbound.counters.dropCounts())")
  pool.release(scratch)
  require(pool.available == pool.count, "\(pool.count - pool.available) buffers are lost")
}
