import Identity

/// What an identity relay shows: who is enrolled, which pairs can talk through it, and why others cannot.
public struct RelayReport: Sendable, Equatable, Codable {
  /// A gateway that is enrolled.
  public struct Gateway: Sendable, Equatable, Codable {
    public var gid: String
    /// Where it is, as the relay sees it: "203.0.113.1:4500", or by several roads
    /// "203.0.113.1:4500, 203.0.113.1:40112 over tcp".
    public var address: String
    /// Seconds since a datagram of it was heard; 0 where it has streams alone.
    public var silence: Double
  }

  /// Two gateways that are named as a pair, or have met.
  public struct Pair: Sendable, Equatable, Codable {
    /// The GIDs, the smaller first.
    public var gateways: [String]
    /// Packets pass in both directions.
    public var isBound: Bool
    /// Why they do not; nil: they do.
    public var reason: String?
    /// Sealed packets and bytes to each, in the same order, and those that were dropped on the way there.
    public var packets: [UInt64]
    public var bytes: [UInt64]
    public var dropped: [UInt64]
  }

  /// How busy the relay is, over the last two seconds; shares of 1.
  public struct Load: Sendable, Equatable, Codable {
    /// The greatest of the three: from 0.5 a handshake waits, from 0.95 one of a new pair is refused.
    public var share: Double
    /// Of the time of its thread, of its bandwidth, and of the pairs that fit.
    public var thread: Double
    public var bandwidth: Double
    public var pairs: Double
    /// Handshakes that wait.
    public var waiting: Int
  }

  /// The relay's own GID.
  public var gid: String
  public var load: Load
  /// What has been counted, by name; reasons for which something was dropped begin with "dropped-".
  public var counters: [String: UInt64]
  public var gateways: [Gateway]
  public var pairs: [Pair]
}

extension IdentityRelay {
  /// Everything, as of now; its time grows with the number of pairs.
  func report(_ clock: HairpinClock) -> RelayReport {
    var gateways: [RelayReport.Gateway] = []
    for place in 0..<places.capacity where places.addresses[place].isEnrolled {
      let address = places.addresses[place]
      gateways.append(
        RelayReport.Gateway(
          gid: "\(places[place].identity.tag)", address: places.whereabouts(place).joined(separator: ", "),
          silence: address.takesDatagrams ? Double(clock.monotonic.nanoseconds(since: address.lastHeard)) / 1e9 : 0))
    }
    var shown: [RelayReport.Pair] = []
    for number in 0..<pairs.capacity {
      guard let pair = pairs[number] else { continue }
      let sides = [pairs.sides[2 * number], pairs.sides[2 * number + 1]]
      let reason = reason(pair, isBound: sides.map(\.isBound), clock.wall)
      shown.append(
        RelayReport.Pair(
          gateways: ["\(pair.smaller)", "\(pair.greater)"], isBound: reason == nil, reason: reason,
          packets: sides.map(\.traffic.packets), bytes: sides.map(\.traffic.bytes),
          dropped: sides.map(\.traffic.dropped)))
    }
    for pair in policy.namedPairs where pairs.number(of: pair) == nil {
      shown.append(
        RelayReport.Pair(
          gateways: ["\(pair.smaller)", "\(pair.greater)"], isBound: false,
          reason: reason(pair, isBound: [false, false], clock.wall), packets: [0, 0], bytes: [0, 0], dropped: [0, 0]))
    }
    return RelayReport(
      gid: "\(options.identity.tag)",
      load: RelayReport.Load(
        share: load.share, thread: load.thread, bandwidth: load.bandwidth, pairs: load.pairs, waiting: waiting.count),
      counters: counters, gateways: gateways.sorted { $0.gid < $1.gid },
      pairs: shown.sorted { $0.gateways.lexicographicallyPrecedes($1.gateways) })
  }

  /// Why two do not talk here; nil: they do, or could.
  private func reason(_ pair: RelayPolicy.Pair, isBound: [Bool], _ wall: Int64) -> String? {
    guard terms(pair, at: wall) != nil else { return "no rule allows it at this time" }
    let tags = [pair.smaller, pair.greater]
    let absent = tags.filter { tag in places.place(of: tag).map { !places.addresses[$0].isEnrolled } ?? true }
    if absent.count == 2 { return "neither is enrolled" }
    if let first = absent.first { return "\(first) is not enrolled" }
    if isBound.allSatisfy({ !$0 }) { return "both are enrolled, and no handshake has come through" }
    return zip(tags, isBound).first { !$0.1 }.map { "\($0.0) has announced no SPI" }
  }

  private var counters: [String: UInt64] {
    var counters: [String: UInt64] = [
      "enrolled": UInt64(clamping: places.enrolled), "pairs": UInt64(clamping: pairs.count),
      "associations": UInt64(clamping: pairs.table.count), "forwarded-packets": statistics.forwardedPackets,
      "forwarded-bytes": statistics.forwardedBytes, "forwarded-handshakes": statistics.forwardedHandshakes,
      "enrolments": statistics.enrolments, "holds": statistics.holds, "bound": statistics.bound,
      "unbound": statistics.unbound, "notices": statistics.notices,
    ]
    for drop in RelayDrop.allCases where statistics[drop] > 0 { counters["dropped-\(drop.name)"] = statistics[drop] }
    return counters
  }
}
