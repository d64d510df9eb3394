import PacketIO

/// Counts of one direction: what came in, what went out, and what was dropped for which reason. In equals out
/// plus drops, always (invariant 4).
package struct PipelineCounters: ~Copyable {
  package var arrived = TrafficCount()
  package var departed = TrafficCount()
  private var drops = FixedArray<UInt64>(repeating: 0, count: DropReason.allCases.count)

  package init() {}

  @inline(__always)
  package mutating func drop(_ reason: DropReason, packets: Int = 1) {
    drops[Int(reason.rawValue)] &+= UInt64(truncatingIfNeeded: packets)
  }

  package borrowing func dropped(_ reason: DropReason) -> UInt64 { drops[Int(reason.rawValue)] }

  /// Reasons that occurred.
  package borrowing func dropCounts() -> [DropCount] {
    var counts: [DropCount] = []
    for reason in DropReason.allCases where dropped(reason) > 0 {
      counts.append(DropCount(reason: reason, packets: dropped(reason)))
    }
    return counts
  }
}

extension TrafficCount {
  @inline(__always)
  mutating func add(packets: Int, bytes: Int) {
    self.packets &+= UInt64(truncatingIfNeeded: packets)
    self.bytes &+= UInt64(truncatingIfNeeded: bytes)
  }
}
