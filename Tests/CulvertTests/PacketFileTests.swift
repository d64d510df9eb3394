import Dataplane
import Host
import PacketIO
import Testing

@testable import culvert

/// Packets that are made up or read from files, to be explained.
@Suite struct PacketFileTests {
  private func packet(_ transport: TestPacket.Transport, isV4: Bool, length: Int = 0) throws -> [UInt8] {
    let (from, to) = isV4 ? ("10.1.0.1", "10.2.0.1") : ("fd00:1::1", "fd00:2::1")
    return try TestPacket(
      from: IPAddress(from)!, to: IPAddress(to)!, transport: transport, destinationPort: 443, number: 47, length: length
    ).bytes
  }

  private func sum(_ bytes: [UInt8]) -> Int {
    var sum = bytes.enumerated().reduce(0) { $0 + Int($1.element) << ($1.offset.isMultiple(of: 2) ? 8 : 0) }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    return sum
  }

  @Test(arguments: TestPacket.Transport.allCases, [true, false])
  func packetsThatAreMadeUpAreRight(transport: TestPacket.Transport, isV4: Bool) throws {
    for length in [0, 77, 1400, 65535] {
      let bytes = try packet(transport, isV4: isV4, length: length)
      #expect(bytes.count >= length && (length < 77 || bytes.count == length))
      let front = isV4 ? 20 : 40
      let stated = isV4 ? Int(bytes[2]) << 8 | Int(bytes[3]) : 40 + (Int(bytes[4]) << 8 | Int(bytes[5]))
      #expect(stated == bytes.count)
      if isV4 { #expect(sum(Array(bytes[..<20])) == 0xFFFF) }
      guard transport != .other else { continue }
      let content = Array(bytes[front...])
      let addresses = Array(bytes[(isV4 ? 12 : 8)..<front])
      let pseudo =
        isV4 && transport == .icmp
        ? [] : addresses + [0, bytes[isV4 ? 9 : 6], UInt8(content.count >> 8), UInt8(content.count & 255)]
      #expect(sum(pseudo + content) == 0xFFFF)
    }
  }

  @Test func familiesDoNotMix() {
    #expect(throws: OperatorError.self) {
      try TestPacket(from: IPAddress("10.1.0.1")!, to: IPAddress("fd00::1")!, transport: .tcp)
    }
  }

  /// What a capture of ours says can be put to `explain` again.
  @Test func readsWhatACaptureWrites() throws {
    let packets = [try packet(.tcp, isV4: true), try packet(.udp, isV4: false, length: 600)]
    var file = CaptureFile.header(snapLength: 100)
    for packet in packets {
      file += CaptureFile.packet(
        packet.prefix(100)[...], length: packet.count, side: .inner, time: 1, isOutgoing: true, comment: "a remark")
    }
    #expect(PacketFile(file)?.frames == [.packet(packets[0]), .cut])
    #expect(PacketFile([UInt8](repeating: 1, count: 100)) == nil)
  }
}
