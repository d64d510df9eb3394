import PacketIO

/// Fragments: the first of a datagram has the ports, so it is judged, and the others follow it.
extension Firewall {
  /// What a fragment comes to, before anything is entered.
  struct FragmentDecision: BitwiseCopyable {
    var verdict: Verdict
    /// Of the packet that the first fragment begins.
    var packet: Firewall.Decision?
    var header: FragmentHeader?
    /// A known datagram that this fragment spoils.
    var poisoned: Int?
  }

  /// A first fragment must hold the whole transport header, so that no later one can write any of it (RFC 1858,
  /// RFC 3128, RFC 7112), and a later one must lie behind what the first one holds (RFC 5722).
  @inline(never)
  borrowing func decideFragment(
    _ packet: InnerPacket, _ bytes: PacketBytes, _ direction: TrafficDirection, ticks: UInt32
  ) -> FragmentDecision {
    func refused(_ header: FragmentHeader?, poisoned: Int? = nil) -> FragmentDecision {
      FragmentDecision(
        verdict: Verdict(refusal: .fragmentRefused, ground: .none, isKnown: poisoned != nil), header: header,
        poisoned: poisoned)
    }
    guard let header = FragmentHeader(packet, bytes) else { return refused(nil) }
    if header.offset == 0 {
      guard header.isAtomic || holdsTransportHeader(packet, bytes) else { return refused(header) }
      let decision = decide(
        packet, bytes, length: packet.length, direction, ticks: ticks, isFirstFragment: !header.isAtomic)
      return FragmentDecision(verdict: decision.verdict, packet: decision, header: header)
    }
    // The first one was asked in `decide`.
    if isSourceRouted(packet, bytes) { return FragmentDecision(verdict: Decision.refused(.sourceRouted).verdict) }
    // Longer than a datagram can be (the "ping of death").
    guard header.offset + header.length <= 0xFFFF else { return refused(header) }
    let key = FragmentTable.Key(packet, bytes, header, direction)
    guard let place = fragments.find(key, ticks: ticks), let entry = fragments.entry(place) else {
      return refused(header)
    }
    guard header.offset >= Int(entry.end) else { return refused(header, poisoned: place) }
    // What judged it may have another place among the rules by now.
    let ground = entry.version == policy?.version ? entry.ground : .none
    return FragmentDecision(verdict: Verdict(refusal: nil, ground: ground, isKnown: true), header: header)
  }

  private func holdsTransportHeader(_ packet: InnerPacket, _ bytes: PacketBytes) -> Bool {
    let room = packet.length - packet.transportOffset
    switch packet.transport {
    case IPProtocol.tcp: return room >= 20 && room >= Int(bytes[packet.transportOffset + 12] >> 4) * 4
    case IPProtocol.udp, IPProtocol.icmp, IPProtocol.icmpV6: return room >= 8
    default: return true
    }
  }

  @inline(never)
  mutating func judgeFragment(
    _ packet: InnerPacket, _ bytes: PacketBytes, _ direction: TrafficDirection, ticks: UInt32, now: MonotonicTime
  ) -> Verdict {
    let decision = decideFragment(packet, bytes, direction, ticks: ticks)
    if let place = decision.poisoned { fragments.poison(place) }
    if let whole = decision.packet { commit(whole, packet, bytes, direction, ticks: ticks, now: now) }
    if let header = decision.header, header.offset == 0, !header.isAtomic, let policy {
      let key = FragmentTable.Key(packet, bytes, header, direction)
      if decision.verdict.passes {
        let peer = policy.peer(of: direction == .outbound ? key.destination : key.source) ?? -1
        fragments.remember(
          FragmentTable.Entry(
            key: key, end: Int32(header.length), seen: ticks, version: policy.version, ground: decision.verdict.ground,
            peer: Int32(truncatingIfNeeded: peer)))
      } else {
        fragments.forget(key)
      }
    }
    if let header = decision.header, header.offset > 0, !header.hasMore, decision.verdict.passes {
      fragments.finish(FragmentTable.Key(packet, bytes, header, direction))
    }
    return decision.verdict
  }
}
