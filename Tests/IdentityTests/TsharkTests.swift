import Foundation
import Identity
import Testing

/// tshark reads the packets as well.
@Suite struct TsharkTests {
  static let isThere: Bool = {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    if folders.contains(where: { FileManager.default.isExecutableFile(atPath: "\($0)/tshark") }) { return true }
    print("SKIPPED: tests in which tshark judges: it is missing; run scripts/setup --tests")
    return false
  }()

  /// Packets as UDP carries them on port 10500, between 10.0.0.1 and 10.0.0.2.
  private static func capture(_ packets: [[UInt8]]) -> Data {
    var file = number(UInt32(0xA1B2_C3D4)) + number(UInt16(2)) + number(UInt16(4)) + [UInt8](repeating: 0, count: 8)
    // Raw IP.
    file += number(UInt32(65535)) + number(UInt32(101))
    for packet in packets {
      let datagram = [0, 0, 0, 0] + packet
      let length = UInt16(datagram.count)
      var ip = [0x45, 0] + number(28 + length) + [0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
      ip += number(UInt16(10500)) + number(UInt16(10500)) + number(8 + length) + [0, 0] + datagram
      file += [UInt8](repeating: 0, count: 8) + number(UInt32(ip.count)) + number(UInt32(ip.count)) + ip
    }
    return Data(file)
  }

  /// A line for each packet: its type, whether it is malformed, and what else tshark has to say.
  private static func judge(_ packets: [[UInt8]]) throws -> [[String]] {
    let folder = FileManager.default.temporaryDirectory.appending(path: "culvert-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appending(path: "packets.pcap")
    try capture(packets).write(to: file)
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments =
      ["tshark", "-r", file.path, "-d", "udp.port==10500,hip", "-T", "fields", "-E", "separator=;"]
      + ["hip.packet_type", "_ws.malformed", "_ws.expert.message"].flatMap { ["-e", $0] }
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
    return text.split(separator: "\n", omittingEmptySubsequences: true).map { line in
      line.split(separator: ";", omittingEmptySubsequences: false).map(String.init)
    }
  }

  @Test(.enabled(if: isThere)) func tsharkFindsNothingMalformed() throws {
    let packets = Exchange.all.flatMap { $0.packets.map(\.bytes) + $0.furtherPackets }
    let lines = try Self.judge(packets)
    try #require(lines.count == packets.count)
    for (packet, line) in zip(packets, lines) {
      #expect(line.first == "\(packet[2])" && line[1].isEmpty, "\(line)")
      // Its HOST_ID is that of the first version of HIP.
      #expect(["", "Unknown algorithm type"].contains(line[2]), "\(line)")
    }
  }

  /// A judge who could not say no would be none.
  @Test(.enabled(if: isThere)) func tsharkSeesWhatIsMalformed() throws {
    let lines = try Self.judge([Exchange.all[0].r1.dropLast(24)])
    #expect(lines.first.map { $0[1].hasPrefix("[Malformed Packet") } == true, "\(lines)")
  }
}
