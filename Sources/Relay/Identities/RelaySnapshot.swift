import Identity
import PacketIO
import Transports

/// What an identity relay has at one moment, copied as it lies, so that it costs the packet thread little. Whoever wants to read
/// it has the work (`report`).
public struct RelaySnapshot: Sendable {
  /// Where an enrolled gateway is, by each of its paths.
  struct Gateway: Sendable {
    let tag: HostIdentityTag
    let datagrams: Endpoint?
    let stream: Endpoint?
    let encryptedStream: Endpoint?
    let lastHeard: MonotonicTime
  }

  struct Side: Sendable {
    let isBound: Bool
    let packets: UInt64
    let bytes: UInt64
    let dropped: UInt64
  }

  /// Two that have met: the side of the smaller tag first.
  struct Pair: Sendable {
    let pair: RelayPolicy.Pair
    let sides: (Side, Side)
  }

  let identity: HostIdentityTag
  let clock: HairpinClock
  let policy: RelayPolicy
  let tickets: RelayTickets
  let load: RelayReport.Load
  let statistics: RelayStatistics
  let gateways: [Gateway]
  let pairs: [Pair]

  /// Everything, in words; its time grows with the number of pairs.
  public var report: RelayReport {
    let enrolled = Set(gateways.map(\.tag))
    let met = Set(pairs.map(\.pair))
    let nothing = Side(isBound: false, packets: 0, bytes: 0, dropped: 0)
    let named = policy.namedPairs.filter { !met.contains($0) }.map { Pair(pair: $0, sides: (nothing, nothing)) }
    return RelayReport(
      gid: "\(identity)", load: load, counters: counters,
      gateways: gateways.map(shown).sorted { $0.gid < $1.gid },
      pairs: (pairs + named).map { shown($0, enrolled) }.sorted { $0.gateways.lexicographicallyPrecedes($1.gateways) })
  }

  private func shown(_ gateway: Gateway) -> RelayReport.Gateway {
    let paths = [
      gateway.datagrams.map { "\($0)" }, gateway.stream.map { "\($0) over tcp" },
      gateway.encryptedStream.map { "\($0) over tls" },
    ]
    let silence = gateway.datagrams == nil ? 0 : clock.monotonic.nanoseconds(since: gateway.lastHeard)
    return RelayReport.Gateway(
      gid: "\(gateway.tag)", address: paths.compactMap { $0 }.joined(separator: ", "), silence: Double(silence) / 1e9)
  }

  private func shown(_ met: Pair, _ enrolled: Set<HostIdentityTag>) -> RelayReport.Pair {
    let sides = [met.sides.0, met.sides.1]
    let reason = reason(met.pair, isBound: sides.map(\.isBound), enrolled)
    return RelayReport.Pair(
      gateways: ["\(met.pair.smaller)", "\(met.pair.greater)"], isBound: reason == nil, reason: reason,
      packets: sides.map(\.packets), bytes: sides.map(\.bytes), dropped: sides.map(\.dropped))
  }

  /// Why two do not talk here; nil: they do, or could.
  private func reason(_ pair: RelayPolicy.Pair, isBound: [Bool], _ enrolled: Set<HostIdentityTag>) -> String? {
    guard tickets.terms(pair, under: policy, at: clock.wall) != nil else { return "no rule allows it at this time" }
    let tags = [pair.smaller, pair.greater]
    let absent = tags.filter { !enrolled.contains($0) }
    if absent.count == 2 { return "neither is enrolled" }
    if let first = absent.first { return "\(first) is not enrolled" }
    if isBound.allSatisfy({ !$0 }) { return "both are enrolled, and no handshake has come through" }
    return zip(tags, isBound).first { !$0.1 }.map { "\($0.0) has announced no SPI" }
  }

  private var counters: [String: UInt64] {
    var counters: [String: UInt64] = [
      "enrolled": UInt64(clamping: statistics.enrolled), "pairs": UInt64(clamping: statistics.pairs),
      "associations": UInt64(clamping: statistics.associations), "forwarded-packets": statistics.forwardedPackets,
      "forwarded-bytes": statistics.forwardedBytes, "forwarded-handshakes": statistics.forwardedHandshakes,
      "enrolments": statistics.enrolments, "holds": statistics.holds, "bound": statistics.bound,
      "unbound": statistics.unbound, "notices": statistics.notices,
    ]
    for drop in RelayDrop.allCases where statistics[drop] > 0 { counters["dropped-\(drop.name)"] = statistics[drop] }
    return counters
  }
}

extension IdentityRelay {
  /// As of now.
  func snapshot(_ clock: HairpinClock) -> RelaySnapshot {
    var statistics = statistics
    (statistics.enrolled, statistics.pairs, statistics.associations) = (places.enrolled, pairs.count, pairs.table.count)
    return RelaySnapshot(
      identity: options.identity.tag, clock: clock, policy: policy, tickets: tickets,
      load: RelayReport.Load(
        share: load.share, thread: load.thread, bandwidth: load.bandwidth, pairs: load.pairs, waiting: waiting.count),
      statistics: statistics, gateways: places.snapshot(), pairs: pairs.snapshot())
  }
}

extension RelayPlaces {
  /// Those that are enrolled.
  fileprivate func snapshot() -> [RelaySnapshot.Gateway] {
    var gateways: [RelaySnapshot.Gateway] = []
    gateways.reserveCapacity(enrolled)
    for place in 0..<capacity where addresses[place].isEnrolled {
      let address = addresses[place]
      gateways.append(
        RelaySnapshot.Gateway(
          tag: self[place].identity.tag, datagrams: address.takesDatagrams ? address.name.endpoint : nil,
          stream: seen(address.stream), encryptedStream: seen(address.encryptedStream), lastHeard: address.lastHeard))
    }
    return gateways
  }
}

extension RelayPairs {
  fileprivate func snapshot() -> [RelaySnapshot.Pair] {
    var met: [RelaySnapshot.Pair] = []
    met.reserveCapacity(count)
    for number in 0..<capacity {
      guard let pair = self[number] else { continue }
      met.append(RelaySnapshot.Pair(pair: pair, sides: (snapshot(of: 2 * number), snapshot(of: 2 * number + 1))))
    }
    return met
  }

  private func snapshot(of side: Int) -> RelaySnapshot.Side {
    let traffic = sides[side].traffic
    return RelaySnapshot.Side(
      isBound: sides[side].isBound, packets: traffic.packets, bytes: traffic.bytes, dropped: traffic.dropped)
  }
}
