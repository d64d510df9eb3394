import CLinux
import Foundation
import Glibc
import Synchronization

@testable import Lab

/// Keeps every packet that passes an interface, whole.
final class Capture: Sendable {
  struct Packet: Sendable, Equatable {
    /// From the Ethernet header on, or on a TUN device from the IP header on.
    var bytes: [UInt8]
    /// Sent by this machine, as opposed to received.
    var isOutgoing: Bool
  }

  private let thread: LabThread<[Packet]>
  private let over = Shared(Atomic(false))

  /// Starts to listen; when this returns, nothing that is sent afterwards is missed.
  init(_ namespace: Namespace, _ interface: String) throws {
    let socket = try namespace.inside { try Socket(tapping: interface) }
    try socket.setReceiveBuffer(64 << 20)
    let over = over
    thread = LabThread(name: "capture") {
      let buffer = LabBuffer(count: 1 << 17)
      var packets: [Packet] = []
      while true {
        var sender = sockaddr_ll()
        var length = socklen_t(MemoryLayout<sockaddr_ll>.size)
        let room = buffer.slice(0, buffer.count)
        let n = withUnsafeMutablePointer(to: &sender) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            recvfrom(socket.descriptor, room.baseAddress, room.count, 0, $0, &length)
          }
        }
        if n >= 0 {
          packets.append(Packet(bytes: buffer.bytes(0, n), isOutgoing: sender.sll_pkttype == 4))  // PACKET_OUTGOING
        } else if over.value.load(ordering: .acquiring) {
          return packets
        }
      }
    }
  }

  deinit { over.value.store(true, ordering: .releasing) }

  /// Ends listening; returns what passed, in order.
  func finish() async throws -> [Packet] {
    over.value.store(true, ordering: .releasing)
    return try await thread.value
  }
}

extension Capture.Packet {
  /// The payload of an Ethernet frame that is UDP on this port; nil for all else.
  func datagram(port: UInt16 = 4500) -> [UInt8]? {
    func word(_ offset: Int) -> UInt16 { UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1]) }
    guard bytes.count >= 14 else { return nil }
    let udp: Int
    switch word(12) {
    case 0x0800 where bytes.count >= 42 && bytes[23] == 17: udp = 14 + Int(bytes[14] & 15) * 4
    case 0x86DD where bytes.count >= 62 && bytes[20] == 17: udp = 54
    default: return nil
    }
    guard bytes.count >= udp + 8, word(udp) == port || word(udp + 2) == port else { return nil }
    return Array(bytes[(udp + 8)..<min(bytes.count, udp + Int(word(udp + 4)))])
  }
}

/// The file format of packet captures (draft-ietf-opsawg-pcap).
enum PacketFile {
  enum Link: UInt32 {
    case ethernet = 1
    case rawIP = 101
  }

  static func write(_ packets: [[UInt8]], link: Link, to path: String) throws {
    var data = Data()
    func add<T: FixedWidthInteger>(_ value: T) {
      withUnsafeBytes(of: value.littleEndian) { data.append(contentsOf: $0) }
    }
    add(0xA1B2_C3D4 as UInt32)
    add(2 as UInt16)
    add(4 as UInt16)
    add(0 as UInt64)
    add(262_144 as UInt32)
    add(link.rawValue)
    for (number, packet) in packets.enumerated() {
      add(UInt32(number / 1_000_000))
      add(UInt32(number % 1_000_000))
      add(UInt32(packet.count))
      add(UInt32(packet.count))
      data.append(contentsOf: packet)
    }
    try data.write(to: URL(filePath: path))
  }

  static func read(_ path: String) throws -> [[UInt8]] {
    let data = [UInt8](try Data(contentsOf: URL(filePath: path)))
    func word(_ offset: Int) -> Int { (0..<4).reduce(0) { $0 | Int(data[offset + $1]) << (8 * $1) } }
    var packets: [[UInt8]] = []
    var offset = 24
    while offset + 16 <= data.count {
      let length = word(offset + 8)
      packets.append(Array(data[(offset + 16)..<(offset + 16 + length)]))
      offset += 16 + length
    }
    return packets
  }
}
