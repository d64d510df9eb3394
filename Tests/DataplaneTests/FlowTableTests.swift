import PacketIO
import Testing

@testable import Dataplane

/// The flow table against lists that are searched from end to end.
@Suite struct FlowTableTests {
  /// What the table should hold: keys by segment, oldest first; of the established ones in no order.
  private struct Model {
    struct Entry {
      var key: FlowKey
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

    func segment(of key: FlowKey) -> FlowSegment? { segments.first { $0.value.contains { $0.key == key } }?.key }
    var count: Int { segments.values.reduce(0) { $0 + $1.count } }

    mutating func take(_ key: FlowKey) -> Entry? {
      guard let segment = segment(of: key), let index = segments[segment]!.firstIndex(where: { $0.key == key }) else {
        return nil
      }
      return segments[segment]!.remove(at: index)
    }

    mutating func insert(_ entry: Entry) {
      let segment: FlowSegment = entry.opener == .outbound ? .pendingOutbound : .pendingInbound
      if segments[segment]!.count == pendingCapacity {
        segments[segment]!.removeFirst()
        evicted += 1
      }
      segments[segment]!.append(entry)
    }

    mutating func establish(_ key: FlowKey) {
      guard let segment = segment(of: key), segment != .established else { return }
      if segment != .closed, segments[.established]!.count + segments[.closed]!.count == flowCapacity {
        if segments[.closed]!.isEmpty {
          var entry = take(key)!
          entry.isEstablished = true
          segments[segment]!.append(entry)
          overflowed += 1
          return
        }
        segments[.closed]!.removeFirst()
        evicted += 1
      }
      var entry = take(key)!
      entry.isEstablished = true
      segments[.established]!.append(entry)
    }

    mutating func close(_ key: FlowKey) {
      guard segment(of: key) == .established else { return }
      segments[.closed]!.append(take(key)!)
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

  private static func flow(_ key: FlowKey, _ table: borrowing FlowTable, opener: TrafficDirection, at ticks: UInt32)
    -> Flow
  {
    Flow(
      key, tag: table.tag(key), at: ticks, version: 1, ground: .refused, kind: .udp, opener: opener, isLoose: false,
      connection: TCPConnection())
  }

  /// - Parameter crowd: how many different keys there are.
  @Test(arguments: [(4, 3, 12), (64, 16, 200), (8, 64, 1000), (1, 1, 6)])
  func behavesAsItsModel(flowCapacity: Int, pendingCapacity: Int, crowd: Int) {
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
        table.insert(Self.flow(key, table, opener: opener, at: ticks))
        model.insert(Model.Entry(key: key, opener: opener, lastSeen: ticks))
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
        expire(&model, ticks: ticks)
        #expect(table.counts.expired - before == UInt64(model.expired))
        model.expired = 0
      }
      if step % 500 == 0 { compare(table, model, step) }
    }
    compare(table, model, 20_000)
    table.removeAll()
    for segment in model.segments.keys { #expect(table.count(segment) == 0) }
  }

  /// UDP flows live 120 s without a packet, and once they were established 300.
  private func expire(_ model: inout Model, ticks: UInt32) {
    for segment in model.segments.keys {
      model.segments[segment] = model.segments[segment]!.filter { entry in
        let lives = ticks &- entry.lastSeen <= FlowClock.ticks(seconds: entry.isEstablished ? 300 : 120)
        if !lives { model.expired += 1 }
        return lives
      }
    }
  }

  private func compare(_ table: borrowing FlowTable, _ model: Model, _ step: Int) {
    for (segment, entries) in model.segments {
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
    #expect(table.counts.evicted == UInt64(model.evicted) && table.counts.overflowed == UInt64(model.overflowed))
  }
}
