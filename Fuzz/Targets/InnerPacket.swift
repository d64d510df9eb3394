import Dataplane
import PacketIO

/// The parser of IP packets, which judges every packet before and behind the tunnel: what it accepts lies within the
/// bytes it was given.
let innerPacket = FuzzTarget(name: "InnerPacket") { input in
  withPacketBytes(input) { bytes in
    guard let packet = InnerPacket(bytes) else { return }
    require(packet.length <= bytes.count, "\(packet) is longer than its \(bytes.count) bytes")
    require(packet.transportOffset <= packet.length, "\(packet) has its transport header outside")
    require(packet.transportOffset >= (packet.isV4 ? 20 : 40), "\(packet) has its transport header inside IP's")
    require(packet.source(bytes).isV4 == packet.isV4, "\(packet) has a source of another family")
    require(packet.destination(bytes).isV4 == packet.isV4, "\(packet) has a destination of another family")
    require(packet.isFragment || packet.isFirstFragment, "\(packet) is a later fragment and no fragment")
  }
}

/// Lends the input as packet memory that ends where the input ends, so that the sanitizer sees a read beyond.
func withPacketBytes(_ input: [UInt8], _ body: (PacketBytes) -> Void) {
  let memory = UnsafeMutableRawPointer.allocate(byteCount: max(input.count, 1), alignment: 16)
  defer { memory.deallocate() }
  memory.copyMemory(from: input, byteCount: input.count)
  body(PacketBytes(memory, count: input.count))
}
