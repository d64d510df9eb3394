import CLinux
import Glibc
import PacketIO

/// Sends one packet of each kind through a TUN device in both directions, before the device has addresses and
/// routes, to see which offloads it keeps: a kernel may accept `TUNSETOFFLOAD` and cut superpackets all the same.
///
/// Towards us: a packet that a packet socket (packet(7)) sends out of the device must be read from a queue as it
/// was. Towards the kernel: a packet written to a queue must arrive at the packet socket as it was. The kernel
/// drops what we write before firewall and routing see it: in IPv4 for a wrong header checksum, in IPv6 for a
/// destination of ::1 from outside. A mark tells our packets from those the kernel sends by itself.
final class OffloadSelfTest {
  private let index: Int32
  private let queues: [Int32]
  private let socket: Int32
  private let pool = BufferPool(count: 2)
  private let probe: PacketBytes
  private let arrived: PacketBytes
  private let mark: (UInt64, UInt64)

  /// Payload bytes of a segment, and segments; the sum is below every MTU and limit in use.
  private static let segmentSize = 400
  private static let segments = 3
  /// Packets are handed over within the sending system call, so this is waited for only when one is lost.
  private static let patience: UInt64 = 40_000_000
  private static let attempts = 3
  /// Packets read at most while emptying a queue: more than a queue holds.
  private static let drainLimit = 4096

  /// - Parameters:
  ///   - index: the interface, which must be up.
  ///   - queues: all its queues, non-blocking.
  /// - Returns: nil where packet sockets are not permitted: then the kernel is taken at its word.
  init?(index: Int32, queues: [Int32]) {
    guard let probe = pool.take(), let arrived = pool.take(), let socket = OffloadSelfTest.openSocket(index) else {
      return nil
    }
    self.index = index
    self.queues = queues
    self.socket = socket
    self.probe = pool.bytes(probe)
    self.arrived = pool.bytes(arrived)
    var random = SystemRandomNumberGenerator()
    mark = (random.next(), random.next())
  }

  private static func openSocket(_ index: Int32) -> Int32? {
    // Deaf until bound, so that it hears one interface only.
    let socket = DeviceCalls.socket(AF_PACKET, Int32(SOCK_RAW.rawValue), 0)
    if socket < 0 { return nil }
    guard DeviceCalls.setNonBlocking(socket) >= 0,
      DeviceCalls.setOption(socket, SOL_PACKET, PACKET_VNET_HDR, 1) >= 0,
      DeviceCalls.bind(socket, address(index, UInt16(ETH_P_ALL))) >= 0
    else {
      close(socket)
      return nil
    }
    return socket
  }

  deinit { close(socket) }

  /// - Returns: those of `offloads` that work in both directions. No packet of the test is left in a queue.
  func run(_ offloads: TunOffloads) -> TunOffloads {
    var passed: TunOffloads = []
    for kind in Kind.all where offloads.contains(kind.offload) && passes(kind) { passed.insert(kind.offload) }
    for queue in queues { drain(queue) }
    // Whatever else there is needs partial checksums.
    return passed.contains(.checksum) ? passed : []
  }

  private func drain(_ queue: Int32) {
    for _ in 0..<OffloadSelfTest.drainLimit {
      if DeviceCalls.read(queue, into: arrived) <= 0 { return }
    }
  }

  private func passes(_ kind: Kind) -> Bool {
    let packet = probe.slice(0, layOut(kind))
    let type = UInt16(kind.isIPv6 ? ETH_P_IPV6 : ETH_P_IP)
    let target = OffloadSelfTest.address(index, type)
    return arrives(packet, kind, at: queues) { DeviceCalls.send(socket, packet, to: target) }
      && arrives(packet, kind, at: [socket]) { DeviceCalls.write(queues[0], packet) }
  }

  private enum Outcome { case whole, changed, lost }

  /// Sends the probe until it arrives: where others use the device already, a full queue may cost a packet.
  private func arrives(_ packet: PacketBytes, _ kind: Kind, at descriptors: [Int32], _ send: () -> Int) -> Bool {
    for _ in 0..<OffloadSelfTest.attempts {
      for descriptor in descriptors { drain(descriptor) }
      guard send() == packet.count else { return false }
      switch outcome(of: packet, kind, at: descriptors) {
      case .whole: return true
      case .changed: return false
      case .lost: continue
      }
    }
    return false
  }

  /// Waits for the probe. A packet with its mark that is anything but the whole probe is a failure.
  private func outcome(of packet: PacketBytes, _ kind: Kind, at descriptors: [Int32]) -> Outcome {
    let start = MonotonicTime.current()
    while true {
      for descriptor in descriptors {
        for _ in 0..<OffloadSelfTest.drainLimit {
          let got = DeviceCalls.read(descriptor, into: arrived)
          if got <= 0 { break }
          guard got <= arrived.count, isMarked(arrived.slice(0, got), kind) else { continue }
          return isWhole(arrived.slice(0, got), packet) ? .whole : .changed
        }
      }
      let waited = MonotonicTime.current().nanoseconds(since: start)
      if waited >= OffloadSelfTest.patience { return .lost }
      DeviceCalls.waitReadable(
        descriptors, milliseconds: Int32((OffloadSelfTest.patience - waited) / 1_000_000) + 1)
    }
  }

  /// The same bytes with the same work left to do; the header length is a hint and may differ.
  private func isWhole(_ got: PacketBytes, _ sent: PacketBytes) -> Bool {
    guard let (offload, gsoSize, _) = VirtioNetHeader.parse(got),
      let (wanted, wantedSize, _) = VirtioNetHeader.parse(sent)
    else { return false }
    return offload == wanted && gsoSize == wantedSize
      && got.dropFirst(VirtioNetHeader.length).equals(sent.dropFirst(VirtioNetHeader.length))
  }

  /// `struct sockaddr_ll`
  private static func address(_ index: Int32, _ type: UInt16) -> [UInt8] {
    KernelBytes {
      $0.add(UInt16(AF_PACKET))
      $0.add(type.bigEndian)
      $0.add(index)
      $0.add(UInt32(0))
      $0.add(UInt64(0))
    }.bytes
  }
}

// MARK: - The packets

extension OffloadSelfTest {
  /// What is tried: one packet for each offload.
  private struct Kind {
    let offload: TunOffloads
    let segmentation: Offload.Segmentation
    let isTCP: Bool
    let isIPv6: Bool

    static let all = [
      Kind(offload: .checksum, segmentation: .none, isTCP: false, isIPv6: false),
      Kind(offload: .tcp4, segmentation: .tcp4, isTCP: true, isIPv6: false),
      Kind(offload: .tcp6, segmentation: .tcp6, isTCP: true, isIPv6: true),
      Kind(offload: .udp4, segmentation: .udp, isTCP: false, isIPv6: false),
      Kind(offload: .udp6, segmentation: .udp, isTCP: false, isIPv6: true),
    ]

    /// Part of the mark: pieces of one kind may still be in the queue when the next is tried.
    var number: UInt64 { UInt64(offload.rawValue) }
    var networkLength: Int { isIPv6 ? 40 : 20 }
    var transportLength: Int { isTCP ? 20 : 8 }
  }

  /// Writes the packet of that kind to `probe`.
  ///
  /// - Returns: its length, with the virtio header.
  private func layOut(_ kind: Kind) -> Int {
    let payloadLength = OffloadSelfTest.segmentSize * (kind.segmentation == .none ? 1 : OffloadSelfTest.segments)
    let transportLength = kind.transportLength + payloadLength
    let headers = kind.networkLength + kind.transportLength
    let offload = Offload(
      segmentation: kind.segmentation, needsChecksum: true, checksumStart: UInt16(kind.networkLength),
      checksumOffset: kind.isTCP ? 16 : 6)
    VirtioNetHeader.write(
      offload, gsoSize: OffloadSelfTest.segmentSize, headerLength: headers, to: probe)

    let packet = probe.slice(VirtioNetHeader.length, headers + payloadLength)
    let network = packet.slice(0, kind.networkLength)
    let transport = packet.slice(kind.networkLength, kind.transportLength)
    let proto = UInt8(kind.isTCP ? IPPROTO_TCP : IPPROTO_UDP)
    if kind.isIPv6 {
      writeIPv6(network, payloadLength: transportLength, proto)
    } else {
      writeIPv4(network, payloadLength: transportLength, proto)
    }
    let addresses = kind.isIPv6 ? network.dropFirst(8) : network.dropFirst(12)
    let partial = OffloadSelfTest.sum(addresses) + UInt32(proto) + UInt32(transportLength)
    write(transport, kind, length: transportLength, partial: OffloadSelfTest.folded(partial))

    // Every segment begins with the mark, so that pieces are known too.
    let payload = packet.dropFirst(headers)
    for position in 0..<payload.count { payload[position] = UInt8(truncatingIfNeeded: position &* 31) }
    for segment in stride(from: 0, to: payload.count, by: OffloadSelfTest.segmentSize) {
      payload.store64(mark.0, segment)
      payload.store64(mark.1 &+ kind.number, segment + 8)
    }
    return VirtioNetHeader.length + packet.count
  }

  private func isMarked(_ bytes: PacketBytes, _ kind: Kind) -> Bool {
    let start = VirtioNetHeader.length + kind.networkLength + kind.transportLength
    guard bytes.count >= start + 16 else { return false }
    return bytes.load64(start) == mark.0 && bytes.load64(start + 8) == mark.1 &+ kind.number
  }

  /// From 192.0.2.1 (RFC 5737) to 0.0.0.2, which is nobody (RFC 1122 §3.2.1.3).
  private func writeIPv4(_ header: PacketBytes, payloadLength: Int, _ proto: UInt8) {
    header.store16(0x4500, 0)
    header.store16(UInt16(20 + payloadLength), 2)
    header.store32(0x0001_4000, 4)
    header[8] = 1
    header[9] = proto
    header.store16(0, 10)
    header.store32(0xC000_0201, 12)
    header.store32(0x0000_0002, 16)
    // The right checksum would be the complement of the sum; the sum itself is wrong.
    header.store16(OffloadSelfTest.folded(OffloadSelfTest.sum(header)), 10)
  }

  /// From 100::1 (RFC 6666) to ::1, which may not come from outside (RFC 4291 §2.5.3).
  private func writeIPv6(_ header: PacketBytes, payloadLength: Int, _ proto: UInt8) {
    header.store32(0x6000_0000, 0)
    header.store16(UInt16(payloadLength), 4)
    header[6] = proto
    header[7] = 1
    header.store64(0x0100 << 48, 8)
    header.store64(1, 16)
    header.store64(0, 24)
    header.store64(1, 32)
  }

  /// A TCP segment with ACK, or a UDP datagram, between discard ports; the checksum is the pseudo-header's.
  private func write(_ header: PacketBytes, _ kind: Kind, length: Int, partial: UInt16) {
    header.store16(9, 0)
    header.store16(9, 2)
    if kind.isTCP {
      header.store64(0x0000_0001_0000_0001, 4)
      header.store32(0x5010_0400, 12)
      header.store16(partial, 16)
      header.store16(0, 18)
    } else {
      header.store16(UInt16(length), 4)
      header.store16(partial, 6)
    }
  }

  /// The sum of all 16-bit words; an even number of bytes, few enough not to overflow.
  private static func sum(_ bytes: PacketBytes) -> UInt32 {
    stride(from: 0, to: bytes.count, by: 2).reduce(0) { $0 + UInt32(bytes.load16($1)) }
  }

  /// Carries added back in (RFC 1071).
  private static func folded(_ sum: UInt32) -> UInt16 {
    var sum = sum
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    return UInt16(sum)
  }
}
