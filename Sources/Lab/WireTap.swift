import Synchronization

/// Listens on an interface and sorts what passes, both ways.
public final class WireTap: Sendable {
  public enum Kind: String, Sendable, CaseIterable {
    /// UDP-encapsulated ESP (RFC 3948).
    case esp = "ESP in UDP"
    /// The same port with the zero marker of key exchange.
    case keyExchange = "key exchange"
    case keepAlive = "keep-alive"
    /// ARP, IPv6 neighbour discovery, and reports to multicast routers.
    case neighbours = "ARP, ND and MLD"
    case other = "other"
  }

  public struct Record: Sendable, Equatable {
    /// Frames by kind. Trains of datagrams that the kernel hands over as one count as one.
    public var frames: [Kind: Int] = [:]
    /// IP packets' bytes by kind.
    public var bytes: [Kind: Int] = [:]
    /// Frames that contained the text looked for.
    public var revealing = 0
    /// The first ESP packet, from the IP header on: 498 bytes of it at most.
    public var example: [UInt8] = []

    public init() {}
  }

  private let thread: LabThread<Record>
  private let over = Shared(Atomic(false))

  /// Starts to listen; when this returns, nothing that is sent afterwards is missed.
  /// - Parameters:
  ///   - port: where ESP is expected.
  ///   - text: bytes to look for in the first 512 of every frame.
  public init(_ namespace: Namespace, interface: String, port: UInt16 = 4500, lookingFor text: String = "") throws {
    let socket = try namespace.inside { try Socket(tapping: interface) }
    let over = over
    thread = LabThread(name: "tap") {
      var record = Record()
      let buffer = LabBuffer(count: 2048)
      let needle = Array(text.utf8)
      while true {
        let n = socket.receiveTruncated(buffer)
        if n > 0 {
          WireTap.take(buffer.bytes(0, min(n, 512)), wireLength: n, port, needle, &record)
        } else if over.value.load(ordering: .acquiring) {
          return record
        }
      }
    }
  }

  /// Ends listening and tells what passed.
  public func finish() throws -> Record {
    over.value.store(true, ordering: .releasing)
    return try thread.join()
  }

  /// - Parameter frame: from the Ethernet header on, possibly cut.
  static func take(_ frame: [UInt8], wireLength: Int, _ port: UInt16, _ needle: [UInt8], _ record: inout Record) {
    let kind = classify(frame, port)
    record.frames[kind, default: 0] += 1
    record.bytes[kind, default: 0] += max(wireLength - 14, 0)
    if kind == .esp, record.example.isEmpty { record.example = Array(frame.dropFirst(14)) }
    if !needle.isEmpty, frame.count >= needle.count {
      for start in 0...(frame.count - needle.count) where frame[start] == needle[0] {
        if frame[start..<start + needle.count].elementsEqual(needle) {
          record.revealing += 1
          return
        }
      }
    }
  }

  static func classify(_ frame: [UInt8], _ port: UInt16) -> Kind {
    func word(_ offset: Int) -> UInt16 { UInt16(frame[offset]) << 8 | UInt16(frame[offset + 1]) }
    guard frame.count >= 14 else { return .other }
    let udp: Int
    switch word(12) {
    case 0x0806: return .neighbours
    case 0x0800:
      guard frame.count >= 34, frame[23] == 17 else { return .other }
      udp = 14 + Int(frame[14] & 15) * 4
    case 0x86DD:
      guard frame.count >= 55 else { return .other }
      // ICMPv6 types 133 to 137 are neighbour discovery (RFC 4861).
      if frame[20] == 58, (133...137).contains(frame[54]) { return .neighbours }
      // Multicast listener reports alone come behind a hop-by-hop header (RFC 3810 §5).
      if frame[20] == 0, frame[54] == 58 { return .neighbours }
      guard frame[20] == 17 else { return .other }
      udp = 54
    default: return .other
    }
    guard frame.count >= udp + 9, word(udp) == port || word(udp + 2) == port else { return .other }
    if word(udp + 4) == 9, frame[udp + 8] == 0xFF { return .keepAlive }
    guard frame.count >= udp + 16 else { return .other }
    return frame[(udp + 8)..<(udp + 12)].allSatisfy { $0 == 0 } ? .keyExchange : .esp
  }
}
