import ArgumentParser
import Dataplane
import Lab
import PacketIO

/// `vpnbench firewall`: what it takes to judge one packet, or superpacket, with few and many rules and flows.
struct FirewallCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "firewall", abstract: "Time to judge one packet: rules, flows, and who uses them.",
    discussion: """
      "busy" packets belong to a hundred of the flows, as when a few transfers are under way; "all" packets to any of \
      them, in random order, which no cache can hold when there are a million. "begin" packets each begin a flow; \
      "refuse" packets are denied by the last rule.
      """)

  @OptionGroup var output: OutputOptions

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.1

  @Option(parsing: .upToNextOption, help: "Numbers of rules, 1 to 4096.")
  var rules = [10, 1000]

  @Option(parsing: .upToNextOption, help: "Numbers of established flows, 100 to 8000000.")
  var flows = [100, 1_000_000]

  func validate() throws {
    guard (0.001...60).contains(seconds) else { throw ValidationError("--seconds is from 0.001 to 60") }
    guard rules.allSatisfy({ (1...4096).contains($0) }) else { throw ValidationError("--rules are from 1 to 4096") }
    guard flows.allSatisfy({ (100...8_000_000).contains($0) }) else {
      throw ValidationError("--flows are from 100 to 8000000")
    }
  }

  func run() throws {
    var report = Report(scenario: "firewall")
    report.settings = ["seconds": "\(seconds)"]
    let shapes = rules.flatMap { rules in flows.map { (rules, $0) } }
    let progress = Progress(total: output.rounds * shapes.count)
    for round in 0..<output.rounds {
      for (rules, flows) in shapes {
        progress.step("round \(round + 1) of \(output.rounds): \(rules) rules, \(flows) flows")
        let subject = Report.Entry(name: "\(rules) rules, \(flows) flows", isBound: false, note: nil)
        var timing = try FirewallTiming(rules: rules, flows: flows)
        try timing.establish()
        for work in FirewallTiming.Work.allCases {
          let time = try timing.run(work, seconds: seconds)
          let metric = Report.Metric(
            id: work.rawValue, title: "Judge one packet", unit: "ns", higherIsBetter: false, column: work.title)
          report.add(time, metric, of: subject)
        }
      }
    }
    progress.finish()
    try output.deliver(report)
  }
}

/// A firewall with established TCP flows from 10.0.0.0/8 to 172.16.0.0/12, and packets for them.
private struct FirewallTiming: ~Copyable {
  enum Work: String, CaseIterable {
    case out = "out-busy"
    case back = "in-busy"
    case outAll = "out-all"
    case backAll = "in-all"
    case begin
    case refuse

    var title: String {
      switch self {
      case .out: "out, busy"
      case .back: "in, busy"
      case .outAll: "out, all"
      case .backAll: "in, all"
      case .begin: "begin"
      case .refuse: "refuse"
      }
    }
  }

  private static let chunk = 1024
  private var firewall: Firewall
  private let pool = BufferPool(count: 1)
  private let bytes: PacketBytes
  private let flows: Int
  private var random = SplitMix64(seed: 7)
  private var next: UInt32 = 0
  private var now = MonotonicTime(nanoseconds: 1 << 40)
  /// Flows of the packets to come.
  private var anticipated = FixedArray<Firewall.AnticipatedFlow>(capacity: 32)

  init(rules: Int, flows: Int) throws {
    let tables = try FirewallTiming.tables(rules: rules, flows: flows)
    guard let buffer = pool.take() else { throw LabError("no packet buffer") }
    self.flows = flows
    bytes = pool.bytes(buffer).slice(0, 60)
    var firewall = Firewall(using: &random)
    firewall.adopt(tables.firewall)
    self.firewall = firewall
    // IPv4 and TCP headers without options, of a packet with 1360 bytes behind them.
    bytes.copy([0x45, 0, 0x05, 0x78, 0, 1, 0x40, 0, 64, 6, 0, 0], to: 0)
  }

  /// Opens all flows.
  mutating func establish() throws {
    for flow in 0..<flows {
      for (flags, direction) in [(0x02, TrafficDirection.outbound), (0x12, .inbound), (0x10, .outbound)] {
        write(UInt32(flow), direction, flags: UInt8(flags))
        try check(passes(direction, length: 40))
      }
    }
  }

  /// As many rules, all about other networks but the last two: outbound TCP passes, inbound UDP does not.
  private static func tables(rules count: Int, flows: Int) throws -> Snapshot {
    var random = SplitMix64(seed: 11)
    var rules: [FirewallRule] = []
    for number in 1..<max(count - 1, 1) {
      let address = IPAddress(v4: 0xC000_0000 | UInt32(truncatingIfNeeded: random.next()) >> 4)
      let port = UInt16(truncatingIfNeeded: random.next())
      rules.append(
        FirewallRule(
          number: number, protocol: number % 2 == 0 ? .tcp : .udp, direction: .inbound,
          source: Prefix(address, length: 16 + number % 17), destinationPorts: port...max(port, port &+ 100),
          action: number % 3 == 0 ? .deny : .allow))
    }
    rules.append(FirewallRule(number: count, protocol: .udp, direction: .inbound, action: .deny))
    rules.append(FirewallRule(number: count + 1, direction: .outbound, action: .allow))
    guard let prefix = Prefix("172.16.0.0/12") else { throw LabError("no prefix") }
    let configuration = Configuration(
      interface: InterfaceConfiguration(source: .name("none")),
      peers: [PeerConfiguration(name: "peer", prefixes: [prefix])],
      firewall: FirewallConfiguration(
        mode: .on, rules: rules, flowCapacity: flows, pendingCapacity: 65_536))
    return Snapshot(configuration, sealing: .leftOut, now: .current())
  }

  private func check(_ condition: Bool) throws {
    if !condition { throw LabError("the firewall judged otherwise than it was told to") }
  }

  @inline(__always)
  private func write(_ flow: UInt32, _ direction: TrafficDirection, flags: UInt8, transport: UInt8 = 6) {
    let local = 0x0A00_0000 | (flow &>> 12)
    let remote = 0xAC10_0000 | (flow & 0xFFFF)
    let ports = UInt32(1024 &+ (flow & 0x3FFF)) << 16 | 443
    bytes[9] = transport
    bytes.store32(direction == .outbound ? local : remote, 12)
    bytes.store32(direction == .outbound ? remote : local, 16)
    bytes.store32(direction == .outbound ? ports : ports << 16 | ports >> 16, 20)
    let isSyn = flags & 2 != 0
    bytes.store32(direction == .outbound ? (isSyn ? 1000 : 1001) : (isSyn ? 5000 : 5001), 24)
    bytes.store32(direction == .outbound ? 5001 : 1001, 28)
    bytes[32] = 0x50
    bytes[33] = flags
    bytes.store16(0xFFFF, 34)
  }

  @inline(__always)
  private mutating func passes(_ direction: TrafficDirection, length: Int) -> Bool {
    // The header says 1400; what is judged is what came, as with superpackets.
    guard let packet = InnerPacket(pool.bytes(0).slice(0, 2000)) else { return false }
    return firewall.judge(
      packet, bytes, length: length, packets: 1, octets: length, direction: direction, now: now
    ).passes
  }

  /// Nanoseconds of one packet, the making of the packet taken off: medians of short runs, so that what else the
  /// machine does hardly shows.
  mutating func run(_ work: Work, seconds: Double) throws -> Double {
    var with: [Double] = []
    var without: [Double] = []
    _ = try turn(work, judging: true)
    let end = MonotonicTime.current().adding(seconds: seconds)
    while MonotonicTime.current() < end {
      without.append(Double(try turn(work, judging: false)))
      with.append(Double(try turn(work, judging: true)))
    }
    let time = (Samples(with).median - Samples(without).median) / Double(FirewallTiming.chunk)
    return max(time, 0)
  }

  /// Writes the packet that follows from a random number.
  @inline(__always)
  private mutating func make(_ number: UInt32, _ work: Work) -> TrafficDirection {
    let direction: TrafficDirection =
      work == .back || work == .backAll || work == .refuse ? .inbound : .outbound
    switch work {
    case .out, .back: write(number % 100, direction, flags: 0x10)
    case .outAll, .backAll: write(number % UInt32(flows), direction, flags: 0x10)
    case .begin:
      next &+= 1
      write(0x0800_0000 &+ (next & 0x07FF_FFFF), direction, flags: 0, transport: 17)
    case .refuse: write(number & 0x07FF_FFFF, direction, flags: 0, transport: 17)
    }
    return direction
  }

  /// Announces the packets to come.
  private mutating func anticipate(_ work: Work) {
    let (generator, number) = (random, next)
    anticipated.removeAll()
    for _ in 0..<anticipated.capacity {
      let direction = make(UInt32(truncatingIfNeeded: random.next() >> 33), work)
      guard let packet = InnerPacket(pool.bytes(0).slice(0, 2000)) else { continue }
      if let flow = firewall.anticipate(packet, bytes, direction) { anticipated.append(flow) }
    }
    for index in 0..<anticipated.count { firewall.fetch(anticipated[index]) }
    (random, next) = (generator, number)
  }

  private mutating func turn(_ work: Work, judging: Bool) throws -> UInt64 {
    let start = MonotonicTime.current()
    var passed = 0
    for index in 0..<FirewallTiming.chunk {
      // As the pipelines do it, which know a batch before they judge it.
      if judging, firewall.isLarge, index % anticipated.capacity == 0 { anticipate(work) }
      let number = UInt32(truncatingIfNeeded: random.next() >> 33)
      let direction = make(number, work)
      if judging {
        if passes(direction, length: 1400) { passed += 1 }
      } else if InnerPacket(pool.bytes(0).slice(0, 2000)) != nil {
        passed += 1
      }
    }
    let time = MonotonicTime.current().nanoseconds(since: start)
    if judging { try check(passed == (work == .refuse ? 0 : FirewallTiming.chunk)) }
    return time
  }
}
