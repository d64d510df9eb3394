import PacketIO

/// How busy a relay is: the greatest of three shares, over the last two seconds. It decides what becomes of the first packet
/// of a handshake: an idle relay passes it on at once and so is chosen, a busy one lets it wait, a full one refuses it.
struct RelayLoad {
  /// What has been measured at a moment, since the start.
  struct Reading {
    var at: MonotonicTime
    /// Nanoseconds for which the thread has worked.
    var busy: UInt64
    /// Bytes that were forwarded.
    var bytes: UInt64
  }

  /// What becomes of an I1.
  enum Verdict: Equatable {
    case forward
    /// For so many nanoseconds.
    case wait(UInt64)
    case refuse
  }

  /// Nanoseconds that are looked back on, and between readings that are kept.
  private static let span: UInt64 = 2_000_000_000
  private static let step: UInt64 = 100_000_000
  /// From where an I1 waits, and from where one of a new pair is refused.
  private static let busy = 0.5
  private static let full = 0.95
  /// Nanoseconds that it waits at most, and how much more or less, so that gateways that ask together are not answered
  /// together.
  private static let longestWait = 200_000_000.0
  private static let spread = 0.1

  /// Bits a second; 0: no limit.
  private let bitRate: UInt64
  /// The oldest first; one of them is two seconds old, or all there are.
  private var readings: [Reading] = []
  /// Shares, 0 to 1: of the time of the relay's thread, of its bandwidth, of the pairs that fit.
  private(set) var thread = 0.0
  private(set) var bandwidth = 0.0
  private(set) var pairs = 0.0

  /// - Parameter bitRate: of the whole relay; 0: no limit.
  init(bitRate: UInt64) { self.bitRate = bitRate }

  /// The greatest share, 0 to 1.
  var share: Double { max(thread, bandwidth, pairs) }

  /// As messages have it, 0 to 255.
  var byte: UInt8 { UInt8(clamping: Int(share * 255)) }

  /// Takes a reading.
  /// - Parameter pairs: share of the pairs that fit.
  mutating func note(_ reading: Reading, pairs: Double) {
    self.pairs = min(max(pairs, 0), 1)
    if let last = readings.last, reading.at.nanoseconds(since: last.at) < RelayLoad.step { return }
    while readings.count > 1, reading.at.nanoseconds(since: readings[1].at) >= RelayLoad.span { readings.removeFirst() }
    readings.append(reading)
    let first = readings[0]
    let seconds = Double(reading.at.nanoseconds(since: first.at)) / 1e9
    guard seconds > 0 else { return }
    thread = min(Double(reading.busy &- min(first.busy, reading.busy)) / 1e9 / seconds, 1)
    let bits = Double(reading.bytes &- min(first.bytes, reading.bytes)) * 8
    bandwidth = bitRate > 0 ? min(bits / seconds / Double(bitRate), 1) : 0
  }

  /// What becomes of an I1.
  /// - Parameter isBound: the pair has a place here already.
  func verdict(isBound: Bool, using random: inout some RandomNumberGenerator) -> Verdict {
    let share = self.share
    if share < RelayLoad.busy { return .forward }
    // Bandwidth is shared by gateways: a new one gets its part, however much the others want.
    if max(thread, pairs) >= RelayLoad.full, !isBound { return .refuse }
    let part = min((share - RelayLoad.busy) / (RelayLoad.full - RelayLoad.busy), 1)
    let about = 1 - RelayLoad.spread + 2 * RelayLoad.spread * Double.random(in: 0...1, using: &random)
    return .wait(UInt64(RelayLoad.longestWait * part * about))
  }
}
