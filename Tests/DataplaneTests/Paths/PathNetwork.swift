import PacketIO

@testable import Dataplane

/// Two path selections and the paths between them, which lose, delay and break, on a clock of its own, from one seed.
/// Only the state machine, against what it has to come to: hours of it cost what seconds of whole nodes do, which run in
/// `Tests/Simulation`.
struct PathNetwork {
  enum Side: Int, CaseIterable { case a, b }

  /// A path by its number: what side `a` sends to it arrives at `b`, seen to come from the port `mapping`, and back.
  struct Wire {
    var number: Int
    /// Nanoseconds one way.
    var delay: UInt64 = 5_000_000
    /// Of 1000 packets.
    var lost = 0
    /// For what each side sends.
    var isUp = [true, true]
    /// The port that a translator gives to side `a`; the same as its own where there is none.
    var mapping: UInt16 = 4500
    var isStream = false

    mutating func set(up: Bool) { isUp = [up, up] }
  }

  struct End {
    var selection: PathSelection
    var sequence: UInt64 = 0
    var newest: UInt64 = 0
    var number: UInt64 = 0
    var nextTick: UInt64
    var lastSent = MonotonicTime(nanoseconds: 0)
    var lastHeardHere = MonotonicTime(nanoseconds: 0)
    var lastPath: Path?
    var sends = true
    var answers = true
    /// When packets of the other side's traffic arrived.
    var arrivals: [UInt64] = []
    var probes = 0
    var changes: [PathChange] = []
    /// Paths by which authentic packets came, and listed ones.
    var known: Set<Path>
  }

  struct Flight {
    var time: UInt64
    var to: Side
    var by: Path
    var sequence: UInt64
    var content: PathContent
  }

  var wires: [Wire]
  private(set) var pair: [End] = []
  var now: UInt64 = 1_000_000_000
  var numbers: SeededNumbers
  /// Between two packets of a side's traffic.
  var spacing: UInt64 = 20_000_000
  private var flights: [Flight] = []
  private var nextTraffic: UInt64 = 1_000_000_000

  /// What `side` calls the wire; side `a` is the one that may be behind a translator.
  static func path(_ side: Side, _ wire: Int, mapping: UInt16 = 4500) -> Path {
    let address = IPAddress(v4: 0xC000_0200 | UInt32(side == .a ? 2 : 1))
    return Path(
      transport: UInt8(wire), endpoint: Endpoint(address: address, port: side == .a ? 4500 : mapping))
  }

  /// - Parameter listed: wires that each side has in its list, in order.
  init(seed: UInt64, wires count: Int, listed: [Side: [Int]]? = nil, aLeads: Bool? = nil) {
    numbers = SeededNumbers(seed: seed)
    wires = (0..<count).map { Wire(number: $0) }
    let aLeads = aLeads ?? (numbers.next() & 1 == 0)
    for side in Side.allCases {
      let paths = (listed?[side] ?? Array(0..<count)).map {
        ConfiguredPath(name: "\($0)", path: PathNetwork.path(side, $0))
      }
      let tieBreaker: UInt64 = (side == .a) == aLeads ? 2 : 1
      pair.append(
        End(
          selection: PathSelection(paths, tieBreaker: tieBreaker, now: MonotonicTime(nanoseconds: now)),
          nextTick: now + UInt64.random(in: 0..<100_000_000, using: &numbers), known: Set(paths.map(\.path))))
    }
  }

  subscript(_ side: Side) -> End {
    get { pair[side.rawValue] }
    _modify { yield &pair[side.rawValue] }
  }

  // MARK: Time

  mutating func run(seconds: Double) {
    let end = now + UInt64(seconds * 1e9)
    while true {
      let tick = Side.allCases.map { self[$0].nextTick }.min()!
      let flight = flights.map(\.time).min() ?? UInt64.max
      let next = min(tick, flight, nextTraffic)
      guard next <= end else { break }
      now = max(now, next)
      if next == flight, let place = flights.firstIndex(where: { $0.time == flight }) {
        arrive(flights.remove(at: place))
      } else if next == nextTraffic {
        nextTraffic += spacing
        for side in Side.allCases where self[side].sends {
          self[side].lastSent = time
          if let path = self[side].selection.currentCandidate?.path { send(.traffic, from: side, along: path) }
        }
      } else {
        for side in Side.allCases where self[side].nextTick == next {
          self[side].nextTick += 100_000_000
          if isActive(side) || time >= self[side].selection.nextDue { service(side) }
        }
      }
    }
    now = end
  }

  private var time: MonotonicTime { MonotonicTime(nanoseconds: now) }
  private func isActive(_ side: Side) -> Bool { time.nanoseconds(since: self[side].lastSent) < 1_000_000_000 }

  /// As a worker does it.
  private mutating func service(_ side: Side) {
    for _ in 0..<2 {
      let traffic = PathSelection.Traffic(isActive: isActive(side), lastHeard: self[side].lastHeardHere)
      let (wires, now) = (wires, time)
      var number = self[side].number
      let probes = self[side].selection.serve(traffic, number: &number, now: now) { wires[Int($0.transport)].isStream }
      self[side].number = number
      self[side].probes += probes.count
      for probe in probes { send(.probe(probe.message), from: side, along: probe.path) }
      let path = self[side].selection.currentCandidate?.path
      if let change = self[side].selection.takeChange() { self[side].changes.append(change) }
      guard path != self[side].lastPath else { break }
      self[side].lastPath = path
      self[side].lastHeardHere = MonotonicTime(nanoseconds: 0)
    }
  }

  // MARK: Packets

  private mutating func send(_ content: PathContent, from side: Side, along path: Path) {
    self[side].sequence += 1
    let wire = wires[Int(path.transport)]
    guard wire.isUp[side.rawValue], Int.random(in: 0..<1000, using: &numbers) >= wire.lost else { return }
    // Packets to a port that the translator has given up go nowhere.
    guard side == .a || path.endpoint.port == wire.mapping else { return }
    let to: Side = side == .a ? .b : .a
    let jitter = UInt64.random(in: 0...wire.delay / 4, using: &numbers)
    flights.append(
      Flight(
        time: now + wire.delay + jitter, to: to, by: PathNetwork.path(to, wire.number, mapping: wire.mapping),
        sequence: self[side].sequence, content: content))
  }

  private mutating func arrive(_ flight: Flight) {
    let side = flight.to
    let isNewest = flight.sequence > self[side].newest
    self[side].newest = max(self[side].newest, flight.sequence)
    self[side].known.insert(flight.by)
    let isHere = flight.by == self[side].selection.currentCandidate?.path
    if isNewest, isHere { self[side].lastHeardHere = time }
    switch flight.content {
    case .traffic:
      self[side].arrivals.append(now)
      guard isNewest, !isHere else { return }
      self[side].selection.receiveTraffic(by: flight.by, now: time)
    case .probe(let probe):
      if self[side].answers {
        send(.reply(ProbeReply(number: probe.number, seen: flight.by.endpoint)), from: side, along: flight.by)
        self[side].selection.receive(probe, by: flight.by, isNewest: isNewest, now: time)
      }
    case .reply(let reply):
      self[side].selection.receive(reply, now: time)
    }
    service(side)
  }

  /// A stream ends: both transports say so.
  mutating func reset(_ wire: Int) {
    for side in Side.allCases {
      for candidate in self[side].selection.candidates where Int(candidate.path.transport) == wire {
        self[side].selection.fail(candidate.path, now: time)
      }
      service(side)
    }
  }

  // MARK: What came of it

  /// The wire that a side's traffic takes.
  func wire(_ side: Side) -> Int? { self[side].selection.currentCandidate.map { Int($0.path.transport) } }

  var switches: Int { Side.allCases.reduce(0) { $0 + Int(self[$1].selection.switches) } }

  /// The longest time, in seconds, in which nothing of the other side's traffic arrived, from that moment on.
  func longestGap(since start: UInt64) -> Double {
    var longest: UInt64 = 0
    for side in Side.allCases {
      let arrivals = [start] + self[side].arrivals.filter { $0 > start } + [now]
      for (earlier, later) in zip(arrivals, arrivals.dropFirst()) { longest = max(longest, later - earlier) }
    }
    return Double(longest) / 1e9
  }

  /// No selection has a path that was neither listed nor proved by an authentic packet.
  var isAuthentic: Bool {
    Side.allCases.allSatisfy { side in
      self[side].selection.candidates.allSatisfy { self[side].known.contains($0.path) }
    }
  }
}
