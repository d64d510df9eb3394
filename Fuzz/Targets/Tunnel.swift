import PacketIO

@testable import Dataplane

/// Both ends of a tunnel with one association a direction, in memory; what pipelines are fuzzed with.
struct Tunnel {
  static let now = MonotonicTime(nanoseconds: 1_000_000_000)
  static let path = Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0202), port: 4500))
  static let spi: UInt32 = 0x0000_1001

  /// Seals.
  let near: Snapshot
  /// Opens.
  let far: Snapshot
  let prefixes: [Prefix]
  /// This side's, inside and beside the peer's.
  static let own = ["10.2.9.0/24", "10.1.0.0/16", "fd00:2:9::/48"].compactMap { Prefix($0) }

  /// No host's.
  static let special = ["0.0.0.0/8", "127.0.0.0/8"].compactMap { Prefix($0) }

  /// - Parameter options: bit 0: real cryptography, else every datagram is believed; bit 1: implicit IV; bit 2:
  ///   extended sequence numbers; bit 3: a path that takes 1300 bytes; bit 4: small packets share ESP packets.
  /// - Parameter own: the far side's own prefixes, which it accepts from no peer.
  init(options: UInt8, prefixes: [String], own: [Prefix] = Tunnel.own) {
    let prefixes = prefixes.compactMap { Prefix($0) }
    let association = SecurityAssociationConfiguration(
      spi: Tunnel.spi, cipher: .aes128GCM, key: KeyMaterial([UInt8](repeating: 7, count: 20)),
      extendedSequenceNumbers: options & 4 != 0, implicitIV: options & 2 != 0, replayWindow: 64)
    let interface = InterfaceConfiguration(source: .name("fuzz"))
    var peer = PeerConfiguration(name: "peer", prefixes: prefixes, path: Tunnel.path)
    peer.aggregates = options & 16 != 0
    peer.outbound = association
    let sealing: Sealing = options & 1 != 0 ? .by(.openSSL) : .leftOut
    near = Snapshot(
      Configuration(interface: interface, peers: [peer]), sealing: sealing, now: Tunnel.now)
    peer.outbound = nil
    peer.inbound = [association]
    far = Snapshot(
      Configuration(interface: interface, peers: [peer], ownPrefixes: own), sealing: sealing, now: Tunnel.now)
    if options & 16 != 0 { near.assumeAggregation() }
    if options & 8 != 0 {
      near.peers[0].state.value.withSelection {
        $0.candidates.settle(everything: true, largestSealed: 1272, raiseInterval: 1_000_000_000) { _ in 28 }
        $0.candidates.assumeSizes()
      }
    }
    self.prefixes = prefixes
  }
}

/// Does what the TUN queue does with deliveries: reads every slice, and gives their references back.
/// - Returns: the packets in them, and the bytes of these packets.
func takeDeliveries(
  _ coalescer: inout Coalescer, pool: BufferPool, _ judge: (PacketBytes) -> Void
) -> (packets: Int, bytes: Int) {
  var total = (packets: 0, bytes: 0)
  for index in 0..<coalescer.deliveries.count {
    let delivery = coalescer.deliveries[index]
    var slices = 0
    var bytes = 0
    var next = delivery.firstSlice
    while next >= 0 {
      let slice = coalescer.slices[Int(next)]
      let piece = pool.bytes(slice.buffer).slice(Int(slice.offset), Int(slice.length))
      if slices == 0 { judge(piece) }
      slices += 1
      bytes += piece.count
      next = slice.next
    }
    require(slices == Int(delivery.sliceCount) && bytes == Int(delivery.length), "\(delivery) miscounts its slices")
    total.packets += Int(delivery.packets)
    total.bytes += bytes + Int(delivery.packets - 1) * Int(delivery.headerLength)
    next = delivery.firstSlice
    while next >= 0 {
      pool.release(coalescer.slices[Int(next)].buffer)
      next = coalescer.slices[Int(next)].next
    }
  }
  coalescer.removeAll()
  return total
}
