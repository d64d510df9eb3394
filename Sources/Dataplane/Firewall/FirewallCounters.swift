import PacketIO

/// What has passed, or not, by each ground.
struct FirewallCounters: ~Copyable {
  /// By `FirewallGround.place`: first those that are always there, then the enabled rules.
  private var counts = FixedArray<TrafficCount>(repeating: TrafficCount(), count: FirewallGround.fixed.count)

  @inline(__always)
  mutating func add(_ ground: FirewallGround, packets: Int, bytes: Int) {
    counts[ground.place].add(packets: packets, bytes: bytes)
  }

  subscript(place: Int) -> TrafficCount { counts[place] }

  /// A rule that stays as it was keeps its counts.
  mutating func carry(from old: FirewallPolicy?, to new: FirewallPolicy) {
    let fixed = FirewallGround.fixed.count
    var next = FixedArray<TrafficCount>(repeating: TrafficCount(), count: fixed + new.enabledRules.count)
    for place in 0..<fixed { next[place] = counts[place] }
    var before: [Int: Int] = [:]
    for (place, rule) in (old?.enabledRules ?? []).enumerated() { before[rule.number] = place }
    for (place, rule) in new.enabledRules.enumerated() {
      if let known = before[rule.number], old?.enabledRules[known] == rule {
        next[fixed + place] = counts[fixed + known]
      }
    }
    counts = next
  }
}
