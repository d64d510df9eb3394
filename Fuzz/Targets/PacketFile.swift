@testable import culvert

/// Captures of others, in pcap and pcapng: what is read lies within the file, and is no more than it has.
let packetFile = FuzzTarget(name: "PacketFile") { input in
  guard let file = PacketFile(input) else { return }
  var total = 0
  for case .packet(let bytes) in file.frames {
    require(bytes.first.map { [4, 6].contains($0 >> 4) } ?? false, "a packet of no IP version")
    total += bytes.count
  }
  require(total <= input.count, "\(total) bytes of packets in \(input.count)")
  require(file.frames.count * 16 <= input.count, "\(file.frames.count) frames in \(input.count) bytes")
}
