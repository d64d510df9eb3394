import PacketIO
import Testing

@testable import Dataplane

/// The flow table against lists that are searched from end to end.
@Suite struct FlowTableTests {
  /// What the table should hold: keys by segment, oldest first. Whose flows give way is asked of `Shares`, which has a
  /// model of its own.
  private struct Model: ~Copyable {
    struct Entry {
      var key: FlowKey
      var peer: Int32
      var opener: TrafficDirection
      var lastSeen: UInt32
      /// It was once, and so lives longer.
      var isEstablished = false
    }

    let flowCapacity: Int
    let pendingCapacity: Int
    var segments: [FlowSegment: [Entry]] = [.pendingOutbound: [], .pendingInbound: [], .established: [], .closed: []]
    var evicted = 0
    var overflowed = 0
    var expired = 0
    var pendingOutbound: Shares
    var pendingInbound: Shares
    var lasting: Shares

    init(flowCapacity: Int, pendingCapacity: Int) {
      self.flowCapacity = flowCapacity
      self.pendingCapacity = pendingCapacity
      pendingOutbound = Shares(.pendingFlowsOutbound, capacity: pendingCapacity)
      pendingInbound = Shares(.pendingFlowsInbound, capacity: pendingCapacity)
      lasting = Shares(.flows, capacity: flowCapacity)
    }

    private mutating func enter(_ entry: Entry, _ segment: FlowSegment) {
      segments[segment]!.append(entry)
      let holder = Holder(row: entry.peer)
      switch segment {
      case .pendingOutbound: pendingOutbound.add(to: holder)
      case .pendingInbound: pendingInbound.add(to: holder)
      default: lasting.add(to: holder)
      }
    }

    private mutating func leave(_ segment: FlowSegment, _ index: Int) -> Entry {
      let entry = segments[segment]!.remove(at: index)
      let holder = Holder(row: entry.peer)
      switch segment {
      case .pendingOutbound: pendingOutbound.give(from: holder)
      case .pendingInbound: pendingInbound.give(from: holder)
      default: lasting.give(from: holder)
      }
      return entry
    }

    private func oldest(_ segment: FlowSegment, of holder: Holder) -> Int? {
      segments[segment]!.firstIndex { Holder(row: $0.peer) == holder }
    }

    func segment(of key: FlowKey) -> FlowSegment? { segments.first { $0.value.contains { $0.key == key } }?.key }
    var count: Int { segments.values.reduce(0) { $0 + $1.count } }

    mutating func take(_ key: FlowKey) -> Entry? {
      guard let segment = segment(of: key), let index = segments[segment]!.firstIndex(where: { $0.key == key }) else {
        return nil
      }
      return leave(segment, index)
    }

    mutating func insert(_ entry: Entry) {
      let segment: FlowSegment = entry.opener == .outbound ? .pendingOutbound : .pendingInbound
      if segments[segment]!.count == pendingCapacity {
        let holder = Holder(row: entry.peer)
        let loser =
          segment == .pendingOutbound ? pendingOutbound.victim(for: holder) : pendingInbound.victim(for: holder)
        if let index = oldest(segment, of: loser) {
          _ = leave(segment, index)
          evicted += 1
        }
      }
      enter(entry, segment)
    }

    mutating func establish(_ key: FlowKey) {
      guard let segment = segment(of: key), segment != .established else { return }
      if segment != .closed, segments[.established]!.count + segments[.closed]!.count == flowCapacity {
        let holder = Holder(row: segments[segment]!.first { $0.key == key }!.peer)
        let loser = lasting.victim(for: holder)
        if let index = oldest(.closed, of: loser) {
          _ = leave(.closed, index)
        } else if loser != holder, let index = oldest(.established, of: loser) {
          _ = leave(.established, index)
        } else {
          var entry = take(key)!
          entry.isEstablished = true
          enter(entry, segment)
          overflowed += 1
          return
        }
        evicted += 1
      }
      var entry = take(key)!
      entry.isEstablished = true
      enter(entry, .established)
    }

    mutating func close(_ key: FlowKey) {
      guard segment(of: key) == .established else { return }
      enter(take(key)!, .closed)
    }

    /// UDP flows live 120 s without a packet, and once they were established 300.
    mutating func expire(ticks: UInt32) {
      for segment in segments.keys {
        while let index = segments[segment]!.firstIndex(where: {
          ticks &- $0.lastSeen > FlowClock.ticks(seconds: $0.isEstablished ? 300 : 120)
        }) {
          _ = leave(segment, index)
          expired += 1
        }
      }
    }
  }

  private static func key(_ number: Int) -> FlowKey {
    FlowKey(
      local: IPAddress(v4: 0x0A01_0000 | UInt32(number >> 4)), remote: IPAddress(v4: 0x0A02_0000), transport: 17,
      localPort: UInt16(number & 15), remotePort: 53)
  }

  private static func find(_ key: FlowKey, in table: borrowing FlowTable) -> Int {
    table.find(key, tag: table.tag(key))
  }

  private static func flow(
    _ key: FlowKey, of peer: Int32, _ table: borrowing FlowTable, opener: TrafficDirection, at ticks: UInt32
  ) -> Flow {
    Flow(
      key, tag: table.tag(key), peer: peer, at: ticks, version: 1, ground: .refused, kind: .udp, opener: opener,
      isLoose: false,
      connection: TCPConnection())
  }

  /// - Parameter crowd: how many different keys there are.
  @Test(arguments: [(4, 3, 12), (64, 16, 200), (8, 64, 1000), (1, 1, 6)], [1, 4])
  func behavesAsItsModel(_ size: (flows: Int, pending: Int, crowd: Int), peers: Int) {
    let (flowCapacity, pendingCapacity, crowd) = size
    var numbers = SeededNumbers(seed: UInt64(crowd))
    var table = FlowTable(
      flowCapacity: flowCapacity, pendingCapacity: pendingCapacity, hash: FlowHash(using: &numbers))
    var model = Model(flowCapacity: flowCapacity, pendingCapacity: pendingCapacity)
    let timeouts = FlowTable.timeouts(FirewallTimeouts())
    var ticks: UInt32 = 1 << 31
    for step in 0..<20_000 {
      ticks &+= 1
      let key = Self.key(Int.random(in: 0..<crowd, using: &numbers))
      let place = Self.find(key, in: table)
      #expect((place >= 0) == (model.segment(of: key) != nil), "step \(step)")
      switch Int.random(in: 0..<100, using: &numbers) {
      case 0..<55:
        guard place < 0 else { break }
        let opener: TrafficDirection = numbers.next() & 1 == 0 ? .outbound : .inbound
        // The first peers have most.
        let peer = Int32(min(key.local.v4 & 15, key.local.v4 >> 1 & 7) % UInt32(peers)) - 1
        table.insert(Self.flow(key, of: peer, table, opener: opener, at: ticks))
        model.insert(Model.Entry(key: key, peer: peer, opener: opener, lastSeen: ticks))
      case 55..<75:
        guard place >= 0, table.flows[place].segment != .established else { break }
        table.flows[place].phase = .established
        table.establish(place)
        model.establish(key)
      case 75..<85:
        guard place >= 0 else { break }
        table.close(place)
        model.close(key)
      case 85..<95:
        guard place >= 0 else { break }
        table.remove(place)
        _ = model.take(key)
      case 95..<99:
        guard place >= 0, let segment = model.segment(of: key) else { break }
        table.flows[place].lastSeen = ticks
        let index = model.segments[segment]!.firstIndex { $0.key == key }!
        model.segments[segment]![index].lastSeen = ticks
      default:
        // Once round all of it, so that the model need not know where the hand is.
        if numbers.next() & 7 == 0 { ticks &+= 3000 }
        let before = table.counts.expired
        table.sweep(table.flows.count, ticks: ticks, timeouts: timeouts)
        model.expire(ticks: ticks)
        #expect(table.counts.expired - before == UInt64(model.expired))
        model.expired = 0
      }
      if step % 500 == 0 { compare(table, model, step) }
    }
    compare(table, model, 20_000)
    table.removeAll()
    for segment in model.segments.keys { #expect(table.count(segment) == 0) }
  }

  private func compare(_ table: borrowing FlowTable, _ model: borrowing Model, _ step: Int) {
    let segments = model.segments
    for (segment, entries) in segments {
      #expect(table.count(segment) == entries.count, "\(segment), step \(step)")
      for entry in entries {
        let place = Self.find(entry.key, in: table)
        guard place >= 0 else {
          Issue.record("a flow of \(segment) is lost, step \(step)")
          continue
        }
        #expect(table.flows[place].segment == segment && table.flows[place].lastSeen == entry.lastSeen, "step \(step)")
      }
    }
    let counts = (evicted: model.evicted, overflowed: model.overflowed)
    #expect(table.counts.evicted == UInt64(counts.evicted) && table.counts.overflowed == UInt64(counts.overflowed))
  }

  /// A peer that fills a segment, or the whole table, pushes out its own flows and nobody else's.
  @Test(arguments: [TrafficDirection.inbound, .outbound]) func aFloodPushesOutItself(opener: TrafficDirection) {
    var numbers = SeededNumbers(seed: 1)
    var table = FlowTable(flowCapacity: 32, pendingCapacity: 16, hash: FlowHash(using: &numbers))
    let (bob, carol): (Int32, Int32) = (3, 7)
    func open(_ number: Int, of peer: Int32, established: Bool) -> FlowKey {
      let key = Self.key(number)
      let place = table.insert(Self.flow(key, of: peer, table, opener: opener, at: 1))
      if established { table.establish(place) }
      return key
    }
    for number in 0..<100 { _ = open(number, of: bob, established: true) }
    let lasting = (0..<8).map { open(1000 + $0, of: carol, established: true) }
    let pending = (0..<8).map { open(2000 + $0, of: carol, established: false) }
    for number in 100..<400 { _ = open(number, of: bob, established: number % 2 == 0) }
    for key in lasting {
      let place = Self.find(key, in: table)
      #expect(place >= 0 && table.flows[place].segment == .established)
    }
    for key in pending { #expect(Self.find(key, in: table) >= 0) }
    let losers = table.shares().flatMap(\.holders).filter { $0.refused > 0 }
    #expect(losers.allSatisfy { $0.holder == .peer(4) } && losers.count == 2)
  }
}
