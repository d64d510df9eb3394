import CLinux
import Glibc
import PacketIO
import Testing

@testable import Dataplane

/// Which worker has a flow, in our words, in the kernel's, and after translation.
@Suite struct FlowOwnerTests: TunTesting {
  /// A packet in a buffer of its own, and who owns its flow.
  private func owner(
    _ bytes: [UInt8], workers: Int = 16, translation: StateCell<PrefixTranslation>? = nil
  ) throws -> Int {
    let pool = BufferPool(count: 1)
    let window = pool.bytes(0).slice(0, bytes.count)
    window.copy(bytes, to: 0)
    let packet = try #require(InnerPacket(window))
    return FlowOwner.owner(packet, window, mask: UInt32(workers - 1), translation: translation?.reference)
  }

  /// The same by 64-bit arithmetic, from fields and not from bytes.
  private func oracle(_ sketch: PacketSketch, ports: UInt64, workers: UInt64 = 16) -> Int {
    let limit: UInt64 = 1 << 32
    let addresses = UInt64(sketch.source.octets.last!) + UInt64(sketch.destination.octets.last!)
    var sum =
      (addresses * 0x9E37_79B1 % limit + ports * 0x85EB_CA6B % limit + UInt64(sketch.transport) * 0xC2B2_AE35 % limit)
      % limit
    sum ^= sum / 32768
    sum = sum * 0x2C1B_3C6D % limit
    return Int(sum / 65536 % workers)
  }

  private func host(_ prefix: String, _ random: inout SeededNumbers) -> String {
    "\(prefix)\(UInt8.random(in: 1...99, using: &random))"
  }

  private struct Sample {
    var sketch: PacketSketch
    var ports: UInt64
    var back: PacketSketch
  }

  /// A packet of any kind with ports or an identifier, and one that answers it.
  private func sample(_ random: inout SeededNumbers) -> Sample {
    let isV4 = Bool.random(using: &random)
    let (near, far) = (
      host(isV4 ? "10.1.2." : "fd00:1::", &random), host(isV4 ? "10.2.3." : "fd00:2::", &random)
    )
    let (a, b) = (UInt16.random(in: 0 ... .max, using: &random), UInt16.random(in: 0 ... .max, using: &random))
    let payload = [UInt8](repeating: 5, count: Int.random(in: 8...60, using: &random))
    switch Int.random(in: 0...3, using: &random) {
    case 0:
      return Sample(
        sketch: PacketSketch(near, far, .udp(sourcePort: a, destinationPort: b), payload: payload),
        ports: UInt64(a) + UInt64(b),
        back: PacketSketch(far, near, .udp(sourcePort: b, destinationPort: a), payload: payload))
    case 1:
      return Sample(
        sketch: PacketSketch(near, far, .tcp(.init(sourcePort: a, destinationPort: b)), payload: payload),
        ports: UInt64(a) + UInt64(b),
        back: PacketSketch(far, near, .tcp(.init(sourcePort: b, destinationPort: a)), payload: payload))
    case 2:
      let (ask, answer): (UInt8, UInt8) = isV4 ? (8, 0) : (128, 129)
      func echo(_ type: UInt8) -> [UInt8] { [type, 0, 0, 0] + be16(a) + be16(b) + payload }
      let icmp: UInt8 = isV4 ? 1 : 58
      return Sample(
        sketch: PacketSketch(near, far, .other(icmp), payload: echo(ask)), ports: UInt64(a),
        back: PacketSketch(far, near, .other(icmp), payload: echo(answer)))
    default:
      return Sample(
        sketch: PacketSketch(near, far, .other(47), payload: payload), ports: 0,
        back: PacketSketch(far, near, .other(47), payload: payload))
    }
  }

  /// Both directions of a flow, and errors about a packet of either, have one owner, which an oracle computes too.
  @Test func bothDirectionsAndErrorsHaveOneOwner() throws {
    var random = SeededNumbers(seed: 31)
    var counts = [Int](repeating: 0, count: 16)
    for _ in 0..<2000 {
      let sample = sample(&random)
      let expected = oracle(sample.sketch, ports: sample.ports)
      counts[expected] += 1
      #expect(try owner(sample.sketch.bytes) == expected)
      #expect(try owner(sample.back.bytes) == expected)
      let isV4 = sample.sketch.isV4
      for (error, to) in [(sample.sketch, sample.back), (sample.back, sample.sketch)] where error.bytes.count >= 48 {
        let router = isV4 ? "192.0.2.77" : "2001:db8::77"
        var message = PacketSketch(router, "\(to.destination)", .other(isV4 ? 1 : 58))
        message.payload = [isV4 ? 3 : 1, 1, 0, 0, 0, 0, 0, 0] + error.bytes
        #expect(try owner(message.bytes) == expected)
      }
    }
    #expect(counts.allSatisfy { $0 > 60 }, "flows are spread: \(counts)")
  }

  /// What comes in is looked at as it will be after translation, so that a flow's owner does not depend on direction;
  /// and where whole bytes are translated, the partner comes to the same.
  @Test(arguments: [24, 30])
  func translationDoesNotChangeTheOwner(length: Int) throws {
    var random = SeededNumbers(seed: 32)
    let pair = PrefixPair(
      real: Prefix("192.168.1.64/\(length)") ?? Prefix("192.168.1.0/24")!,
      intermediate: Prefix("100.64.7.128/\(length)") ?? Prefix("100.64.7.0/24")!)
    let translation = StateCell(PrefixTranslation(local: [pair]))
    for _ in 0..<500 {
      var sample = sample(&random)
      guard sample.sketch.isV4 else { continue }
      let host = IPAddress(v4: pair.real.address.v4 + UInt32.random(in: 1...2, using: &random))
      let known = IPAddress(v4: pair.intermediate.address.v4 + (host.v4 - pair.real.address.v4))
      sample.sketch.source = host
      let own = try owner(sample.sketch.bytes)
      sample.back.destination = known
      #expect(try owner(sample.back.bytes, translation: translation) == own)
      if length == 24 { #expect(try owner(sample.back.bytes) == own) }
    }
  }

  /// A datagram's fragments follow its first one, as long as it is known.
  @Test func fragmentsFollowTheFirst() throws {
    var owners = FragmentOwners()
    let pool = BufferPool(count: 1)
    func ask(_ sketch: PacketSketch, _ owners: inout FragmentOwners) throws -> Int {
      let bytes = pool.bytes(0).slice(0, sketch.bytes.count)
      bytes.copy(sketch.bytes, to: 0)
      let packet = try #require(InnerPacket(bytes))
      return owners.owner(packet, bytes) { FlowOwner.owner(packet, bytes, mask: 15) }
    }
    for v6 in [false, true] {
      for number in 0..<40 {
        var datagram = Datagram(.outbound, length: 3000, v6: v6, localPort: UInt16(3000 + number))
        datagram.identification = UInt16(number + 1)
        let expected = try owner(datagram.whole.bytes)
        // One that comes before the first is nobody's.
        #expect(try ask(datagram.fragment(1480..<2960), &owners) == 0)
        #expect(try ask(datagram.fragment(0..<1480), &owners) == expected)
        #expect(try ask(datagram.fragment(1480..<2960), &owners) == expected)
        #expect(try ask(datagram.fragment(2960..<3008), &owners) == expected)
        datagram.identification += 1000
        #expect(try ask(datagram.fragment(1480..<2960), &owners) == 0)
      }
    }
  }

  /// The kernel puts each packet on the queue of the worker that we would say; what it does not look into, on the
  /// first.
  @Test(.enabled("needs root, /dev/net/tun and the tools ip and ethtool") { PrivateNetwork.isAvailable })
  func theKernelSteersAlike() async throws {
    try await PrivateNetwork.run { checks in
      let count = 4
      let device = try TunDevice(
        interface("cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], mtu: 1500, offloads: []), queues: count)
      checks.equal(QueueSteering.attach(to: device.queues[0], workers: count), 0)
      // Raw packets to an address behind the device, of every kind.
      var random = SeededNumbers(seed: 33)
      let pool = BufferPool(count: 2)
      func drain() -> [(queue: Int, bytes: [UInt8])] {
        var found: [(Int, [UInt8])] = []
        for (queue, descriptor) in device.queues.enumerated() {
          while true {
            let got = DeviceCalls.read(descriptor, into: pool.bytes(0))
            if got <= 0 { break }
            let packet = pool.bytes(0).slice(VirtioNetHeader.length, got - VirtioNetHeader.length).array()
            found.append((queue, packet))
          }
        }
        return found
      }
      let socket = DeviceCalls.socket(AF_INET, Int32(SOCK_RAW.rawValue), 255)
      let socket6 = DeviceCalls.socket(AF_INET6, Int32(SOCK_RAW.rawValue), 255)
      defer {
        close(socket)
        close(socket6)
      }
      _ = drain()
      var queues: Set<Int> = []
      for number in 0..<400 {
        var sketch = sample(&random).sketch
        // Fragments, and errors, are for worker 0 to look into.
        let isPlain = number % 8 != 0
        if !isPlain {
          sketch.body = .other(17)
          sketch.fragment = (offset: 0, more: true)
          sketch.dontFragment = false
          sketch.payload = [UInt8](repeating: 9, count: 64)
        }
        let v4 = sketch.isV4
        sketch.source = IPAddress(v4 ? "10.90.0.1" : "2001:db8:90::1")!
        var octets = IPAddress(v4 ? "10.90.0.0" : "2001:db8:90::")!.octets
        octets[octets.count - 1] = UInt8.random(in: 2...250, using: &random)
        sketch.destination = IPAddress(octets: octets)
        let bytes = sketch.bytes
        let window = pool.bytes(1).slice(0, bytes.count)
        window.copy(bytes, to: 0)
        let target = KernelBytes {
          $0.add(UInt16(v4 ? AF_INET : AF_INET6))
          $0.add(UInt16(0))
          if v4 {
            for octet in octets { $0.add(octet) }
            $0.add(UInt64(0))
          } else {
            $0.add(UInt32(0))
            for octet in octets { $0.add(octet) }
            $0.add(UInt32(0))
          }
        }
        let sent = DeviceCalls.send(v4 ? socket : socket6, window, to: target.bytes)
        checks.equal(sent, bytes.count)
        let found = drain().filter { $0.bytes.count == bytes.count }
        checks.equal(found.count, 1)
        guard let arrived = found.first else { continue }
        queues.insert(arrived.queue)
        let expected = isPlain ? (try? owner(arrived.bytes, workers: count)) ?? -1 : 0
        checks.equal(arrived.queue, expected)
      }
      checks.equal(queues, [0, 1, 2, 3])
    }
  }
}
