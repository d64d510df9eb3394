import PacketIO

/// All that happened: a number that stands for it, and the last events in words.
struct Trace {
  struct Event {
    enum Kind: UInt8 {
      case read, told, sealed, lost, strayed, arrived, refused, delivered, handedOff, keepAlive, adopted, started,
        stopped
      case replayed, invented, weather, moved, agreed, rekeyed, changedPeers, reloaded
    }

    var time: MonotonicTime
    var kind: Kind
    var gateway: Int
    /// The other gateway, or a worker.
    var other = -1
    /// A packet, or the sequence number of a sealed one.
    var number: UInt64 = 0
    var size = 0
  }

  static let shown = 80

  /// Two runs with the same number have seen the same events, and the same bytes on every link.
  private(set) var digest: UInt64 = 0x243F_6A88_85A3_08D3
  private(set) var count = 0
  private(set) var counts: [Event.Kind: Int] = [:]
  private var last: [Event] = []
  /// Shows what happens from then on, in place of the last events.
  var start: MonotonicTime?

  mutating func add(_ event: Event) {
    count += 1
    counts[event.kind, default: 0] += 1
    mix(event.time.nanoseconds)
    mix(UInt64(event.kind.rawValue) << 48 | UInt64(event.gateway & 0xFF) << 40 | UInt64(event.other & 0xFF) << 32)
    mix(event.number ^ UInt64(event.size) << 40)
    if let start { if event.time < start || last.count == Trace.shown { return } }
    if last.count < Trace.shown { last.append(event) } else { last[(count - 1) % Trace.shown] = event }
  }

  /// What tells one datagram from another: its tag is a digest of all of it.
  mutating func add(tagOf datagram: [UInt8]) {
    var word: UInt64 = 0
    for byte in datagram.suffix(8) { word = word << 8 | UInt64(byte) }
    mix(word)
  }

  private mutating func mix(_ word: UInt64) {
    digest = (digest ^ word) &* 0x9E37_79B9_7F4A_7C15
    digest ^= digest >> 29
  }

  /// The last events, one a line.
  var lines: [String] {
    let oldest = last.count < Trace.shown || start != nil ? 0 : count % Trace.shown
    return (last[oldest...] + last[..<oldest]).map(\.description)
  }
}

extension Trace.Event: CustomStringConvertible {
  var description: String {
    let microseconds = time.nanoseconds / 1000
    let fraction = String(1_000_000 + microseconds % 1_000_000).dropFirst()
    let head = "\(microseconds / 1_000_000).\(fraction)  gateway \(gateway)  "
    let to = other >= 0 ? " gateway \(other)" : ""
    switch kind {
    case .read: return head + "reads packet \(number) for\(to), \(size) bytes"
    case .told: return head + "tells the sender of packet \(number) that it is too large"
    case .sealed: return head + "sends \(size) bytes to\(to), number \(number)"
    case .lost: return head + "loses \(size) bytes for\(to) on the link, number \(number)"
    case .strayed: return head + "has sent \(size) bytes to where\(to) is not, number \(number)"
    case .arrived: return head + "receives \(size) bytes from\(to), number \(number)"
    case .refused: return head + "is to refuse \(size) bytes from\(to), number \(number)"
    case .delivered: return head + "delivers packet \(number) from\(to), \(size) bytes"
    case .handedOff: return head + "wakes worker \(other)"
    case .keepAlive: return head + "keeps the path to\(to) open"
    case .adopted: return head + "has other tables, worker \(other)"
    case .started: return head + "starts"
    case .stopped: return head + "stops"
    case .replayed: return head + "gets a replay of number \(number) from\(to)"
    case .invented: return head + "gets \(size) invented bytes"
    case .weather: return head + "has other weather towards\(to)"
    case .moved: return head + "has another address"
    case .agreed: return head + "has other agreements"
    case .rekeyed: return head + "has other keys for\(to)"
    case .changedPeers: return head + "has other peers"
    case .reloaded: return head + "is told what it was told before"
    }
  }
}
