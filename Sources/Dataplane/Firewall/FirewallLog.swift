public import PacketIO

/// A flow that a rule allowed, or a packet that was refused, where logging was asked for.
public struct FirewallLogEntry: Sendable, Equatable {
  /// The rule's number and name; nil where an access list or the default policy decided.
  public var rule: Int?
  public var ruleName: String
  /// "rule", "access-list", "default: refused".
  public var ground: String
  public var isAllowed: Bool
  public var direction: TrafficDirection
  /// The partner, where its address is known to be one's.
  public var peer: String?
  /// Protocol number.
  public var transport: UInt8
  public var source: IPAddress
  public var destination: IPAddress
  /// Zero where the protocol has none.
  public var sourcePort: UInt16
  public var destinationPort: UInt16
  /// Entries that were left out since the one before this, because there were too many.
  public var suppressed: UInt64
}

/// Entries that wait for the worker, few and seldom: ten a second of one partner in the long run, and three times as many
/// of all.
struct FirewallLog: ~Copyable {
  struct Record: BitwiseCopyable {
    var opening: FlowOpening
    var ground: FirewallGround
    var isAllowed: Bool
    var suppressed: UInt64
  }

  private static let interval: UInt64 = 2_000_000_000
  private static let perInterval = 60

  private(set) var records = FixedArray<Record>(capacity: perInterval)
  private(set) var held = Shares(.firewallLog, capacity: perInterval)
  private var begin = MonotonicTime(nanoseconds: 0)
  private var suppressed: UInt64 = 0

  /// - Parameter holder: the partner whom it is about.
  mutating func add(
    _ opening: FlowOpening, _ ground: FirewallGround, isAllowed: Bool, of holder: Holder, now: MonotonicTime
  ) {
    if now.nanoseconds(since: begin) >= FirewallLog.interval {
      begin = now
      held.removeAll()
    }
    guard !records.isFull, held.take(for: holder) else {
      suppressed &+= 1
      return
    }
    records.append(Record(opening: opening, ground: ground, isAllowed: isAllowed, suppressed: suppressed))
    suppressed = 0
  }

  mutating func removeAll() { records.removeAll() }
}

extension Firewall {
  /// What waits to be reported, and forgets it.
  /// - Parameter name: of the peer of a row, where there is one.
  mutating func takeLog(_ name: (Int) -> String?) -> [FirewallLogEntry] {
    guard !log.records.isEmpty, let policy else { return [] }
    var entries: [FirewallLogEntry] = []
    for index in 0..<log.records.count {
      let record = log.records[index]
      let rule = record.ground.rule.flatMap { $0 < policy.enabledRules.count ? policy.enabledRules[$0] : nil }
      entries.append(
        FirewallLogEntry(
          rule: rule?.number, ruleName: rule?.name ?? "", ground: record.ground.name, isAllowed: record.isAllowed,
          direction: record.opening.direction,
          peer: policy.peer(of: record.opening.remote).flatMap(name),
          transport: record.opening.transport, source: record.opening.source, destination: record.opening.destination,
          sourcePort: record.opening.sourcePort, destinationPort: record.opening.destinationPort,
          suppressed: record.suppressed))
    }
    log.removeAll()
    return entries
  }
}
