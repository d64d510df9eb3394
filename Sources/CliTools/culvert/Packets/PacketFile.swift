import Glibc
import Host
import PacketIO

/// The IP packets of a capture, in the form of pcap or pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
struct PacketFile: Sendable, Equatable {
  /// One frame of the file.
  enum Frame: Sendable, Equatable {
    /// From the IP header on.
    case packet([UInt8])
    /// No IP, or of a link layer that is not known here.
    case foreign
    /// The capture kept less than there was.
    case cut
  }

  /// In the file's order.
  private(set) var frames: [Frame] = []

  /// Bytes of the largest file that is read.
  static let largest = 256 << 20

  /// - Parameter path: "-" is standard input. It may be a pipe.
  /// - Throws: `OperatorError`.
  init(contentsOf path: String) throws {
    let bytes: [UInt8]
    do {
      let file = path == "-" ? Descriptor(adopting: dup(STDIN_FILENO)) : try Descriptor(open: path, O_RDONLY)
      bytes = try file.readAll(limit: PacketFile.largest)
    } catch {
      throw OperatorError("\(path) cannot be read: \(error.reason)", remedy: "give the path of a pcap or pcapng file")
    }
    guard bytes.count <= PacketFile.largest, let file = PacketFile(bytes) else {
      throw OperatorError(
        "\(path) is no whole pcap or pcapng file", remedy: "write one with tcpdump -w, or cut it with editcap")
    }
    self = file
  }

  /// Nil when the bytes are of no such form; what comes behind damage is left out.
  init?(_ bytes: [UInt8]) {
    let reader = Reader(bytes: bytes)
    guard bytes.count >= 24 else { return nil }
    switch reader.word(0, false) {
    case 0xA1B2_C3D4, 0xA1B2_3C4D: readClassic(reader, isBig: false)
    case 0xD4C3_B2A1, 0x4D3C_B2A1: readClassic(reader, isBig: true)
    case 0x0A0D_0D0A: readBlocks(reader)
    default: return nil
    }
  }

  private struct Reader {
    let bytes: [UInt8]

    /// Callers have checked that four bytes are there.
    func word(_ offset: Int, _ isBig: Bool) -> UInt32 {
      (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * (isBig ? 3 - $1 : $1)) }
    }

    func half(_ offset: Int, _ isBig: Bool) -> UInt16 {
      UInt16(bytes[offset + (isBig ? 0 : 1)]) << 8 | UInt16(bytes[offset + (isBig ? 1 : 0)])
    }
  }

  private mutating func readClassic(_ reader: Reader, isBig: Bool) {
    let link = reader.word(20, isBig) & 0xFFFF
    var offset = 24
    while offset + 16 <= reader.bytes.count {
      let kept = Int(reader.word(offset + 8, isBig))
      let whole = Int(reader.word(offset + 12, isBig))
      guard kept <= reader.bytes.count - offset - 16 else { return }
      add(reader.bytes[(offset + 16)..<(offset + 16 + kept)], whole: whole, link: link)
      offset += 16 + kept
    }
  }

  private mutating func readBlocks(_ reader: Reader) {
    var offset = 0
    var isBig = false
    var links: [UInt32] = []
    while offset + 12 <= reader.bytes.count {
      let type = reader.word(offset, isBig)
      if type == 0x0A0D_0D0A {
        isBig = reader.word(offset + 8, false) == 0x4D3C_2B1A
        links = []
      }
      let length = Int(reader.word(offset + 4, isBig))
      guard length >= 12, length % 4 == 0, length <= reader.bytes.count - offset else { return }
      let body = (offset + 8)..<(offset + length - 4)
      switch type {
      case 1 where body.count >= 8: links.append(UInt32(reader.half(body.lowerBound, isBig)))
      case 6 where body.count >= 20:
        let interface = Int(reader.word(body.lowerBound, isBig))
        let kept = Int(reader.word(body.lowerBound + 12, isBig))
        let whole = Int(reader.word(body.lowerBound + 16, isBig))
        guard kept <= body.count - 20, links.indices.contains(interface) else { return }
        let start = body.lowerBound + 20
        add(reader.bytes[start..<(start + kept)], whole: whole, link: links[interface])
      default: break
      }
      offset += length
    }
  }

  private mutating func add(_ bytes: ArraySlice<UInt8>, whole: Int, link: UInt32) {
    guard let packet = PacketFile.network(bytes, link: link), let first = packet.first, [4, 6].contains(first >> 4)
    else { return frames.append(.foreign) }
    frames.append(whole > bytes.count ? .cut : .packet(Array(packet)))
  }

  /// What follows the link layer's header.
  private static func network(_ bytes: ArraySlice<UInt8>, link: UInt32) -> ArraySlice<UInt8>? {
    func type(_ offset: Int) -> Int {
      Int(bytes[bytes.startIndex + offset]) << 8 | Int(bytes[bytes.startIndex + offset + 1])
    }
    switch link {
    // Raw IP, as different systems number it.
    case 12, 14, 101, 228, 229: return bytes
    case 1:
      guard bytes.count >= 14 else { return nil }
      var offset = 12
      while [0x8100, 0x88A8].contains(type(offset)) {
        offset += 4
        guard bytes.count >= offset + 2 else { return nil }
      }
      return [0x0800, 0x86DD].contains(type(offset)) ? bytes.dropFirst(offset + 2) : nil
    // Linux "cooked", both versions.
    case 113: return bytes.count >= 16 && [0x0800, 0x86DD].contains(type(14)) ? bytes.dropFirst(16) : nil
    case 276: return bytes.count >= 20 && [0x0800, 0x86DD].contains(type(0)) ? bytes.dropFirst(20) : nil
    default: return nil
    }
  }
}
