import PacketIO

@testable import Dataplane

/// Two path selections that each may open a stream to the other, and a path for single packets beside if so wished, on a clock
/// of its own. Nothing is lost but what is on a stream when it ends. Only the state machines; `Tests/Simulation` has no
/// streams.
struct TwinNetwork {
  enum Side: Int, CaseIterable {
    /// Has the lower address.
    case low
    case high
    var other: Side { self == .low ? .high : .low }
    var address: IPAddress { IPAddress(v4: 0xC000_0201 + UInt32(rawValue)) }
  }

  struct End {
    var selection: PathSelection
    var sends: Bool
    /// Whether streams can be opened from outside.
    var isReachable = true
    var number: UInt64 = 0
    var sequence: UInt64 = 0
    var newest: UInt64 = 0
    var lastSent: UInt64 = 0
    var lastHeardHere: UInt64 = 0
    var lastPath: Path?
    var trafficSent = 0
    var trafficReceived = 0
    var lastReceived: UInt64 = 0
    var longestGap: UInt64 = 0
    var changes: [PathChange] = []
  }

  struct Flight {
    var time: UInt64
    var to: Side
    var by: Path
    /// Nil: no stream.
    var stream: UInt64?
    var sequence: UInt64
    var content: PathContent
  }

  var ends: [End]
  var now: UInt64 = 1_000_000_000
  /// Streams that are open, with who opened them.
  private(set) var streams: [UInt64: Side] = [:]
  private(set) var dialled = 0
  private var flights: [Flight] = []
  private static let step: UInt64 = 10_000_000
  private static let stream: UInt8 = 1

  private static func datagrams(_ side: Side) -> Path {
    Path(endpoint: Endpoint(address: side.other.address, port: 4500))
  }
  private static func own(_ side: Side) -> Path {
    Path(transport: stream, endpoint: Endpoint(address: side.other.address, port: 4500))
  }
  private static func path(_ side: Side, _ number: UInt64, opener: Side) -> Path {
    if side == opener { return own(side) }
    let port = UInt16(truncatingIfNeeded: 30_000 + number)
    return Path(transport: stream, endpoint: Endpoint(address: opener.address, port: port), tag: number)
  }

  /// - Parameters:
  ///   - dialling: who lists a stream to the other.
  ///   - sending: whose traffic there is.
  init(leader: Side, dialling: [Side] = Side.allCases, sending: [Side] = Side.allCases, withDatagrams: Bool = false) {
    let start = MonotonicTime(nanoseconds: now)
    ends = Side.allCases.map { side in
      let paths =
        (withDatagrams ? [ConfiguredPath(name: "udp", path: TwinNetwork.datagrams(side))] : [])
        + (dialling.contains(side) ? [ConfiguredPath(name: "tcp", path: TwinNetwork.own(side))] : [])
      return End(
        selection: PathSelection(paths, tieBreaker: side == leader ? 2 : 1, now: start), sends: sending.contains(side),
        lastReceived: start.nanoseconds)
    }
  }

  subscript(_ side: Side) -> End {
    get { ends[side.rawValue] }
    _modify { yield &ends[side.rawValue] }
  }

  private var time: MonotonicTime { MonotonicTime(nanoseconds: now) }
  private func isActive(_ side: Side) -> Bool { now - self[side].lastSent < 1_000_000_000 }

  mutating func run(seconds: Double) {
    let end = now + UInt64(seconds * 1e9)
    while now < end {
      now += TwinNetwork.step
      let due = flights.filter { $0.time <= now }
      flights.removeAll { $0.time <= now }
      for flight in due { arrive(flight) }
      for side in Side.allCases {
        if self[side].sends, now % (5 * TwinNetwork.step) == 0, let path = self[side].selection.currentCandidate?.path {
          self[side].lastSent = now
          if send(.traffic, from: side, along: path) { self[side].trafficSent += 1 }
        }
        let isTick = (now / TwinNetwork.step + UInt64(side.rawValue)) % 10 == 0
        if isTick, isActive(side) || time >= self[side].selection.nextDue { service(side) }
      }
    }
  }

  /// A stream ends for both.
  mutating func end(_ number: UInt64, but: Side? = nil) {
    guard let opener = streams.removeValue(forKey: number) else { return }
    flights.removeAll { $0.stream == number }
    for side in Side.allCases where side != but {
      self[side].selection.fail(TwinNetwork.path(side, number, opener: opener), now: time)
    }
  }

  mutating func endAll() { for number in streams.keys.sorted() { end(number) } }

  /// As a worker does it.
  private mutating func service(_ side: Side) {
    for _ in 0..<2 {
      let heard = MonotonicTime(nanoseconds: self[side].lastHeardHere)
      let traffic = PathSelection.Traffic(isActive: isActive(side), lastHeard: heard)
      let now = time
      var number = self[side].number
      let probes = self[side].selection.serve(traffic, number: &number, now: now) {
        $0.transport == TwinNetwork.stream
      }
      self[side].number = number
      for probe in probes { _ = send(.probe(probe.message), from: side, along: probe.path) }
      for path in self[side].selection.takeReleased() where path == TwinNetwork.own(side) {
        for number in streams.keys.sorted() where streams[number] == side { end(number, but: side) }
      }
      if let change = self[side].selection.takeChange() { self[side].changes.append(change) }
      let path = self[side].selection.currentCandidate?.path
      guard path != self[side].lastPath else { break }
      self[side].lastPath = path
      self[side].lastHeardHere = 0
    }
  }

  /// False when there is nothing to send by.
  private mutating func send(_ content: PathContent, from side: Side, along path: Path) -> Bool {
    self[side].sequence += 1
    var flight = Flight(
      time: now + TwinNetwork.step, to: side.other, by: TwinNetwork.datagrams(side.other), stream: nil,
      sequence: self[side].sequence, content: content)
    if path.transport == TwinNetwork.stream {
      guard let number = stream(side, path) else { return false }
      flight.stream = number
      flight.by = TwinNetwork.path(side.other, number, opener: streams[number] ?? side)
    }
    flights.append(flight)
    return true
  }

  /// The stream that a path leads to; dialled, if need be and if it may be.
  private mutating func stream(_ side: Side, _ path: Path) -> UInt64? {
    if path.tag != 0 { return streams[path.tag] == nil ? nil : path.tag }
    if let number = streams.first(where: { $0.value == side })?.key { return number }
    guard self[side.other].isReachable else {
      self[side].selection.fail(path, now: time)
      return nil
    }
    dialled += 1
    let number = UInt64(dialled)
    streams[number] = side
    self[side].selection.open(path, now: time)
    return number
  }

  private mutating func arrive(_ flight: Flight) {
    let side = flight.to
    let isNewest = flight.sequence > self[side].newest
    self[side].newest = max(self[side].newest, flight.sequence)
    let isHere = flight.by == self[side].selection.currentCandidate?.path
    if isNewest, isHere { self[side].lastHeardHere = now }
    switch flight.content {
    case .traffic:
      self[side].trafficReceived += 1
      self[side].longestGap = max(self[side].longestGap, now - self[side].lastReceived)
      self[side].lastReceived = now
      guard isNewest, !isHere else { return }
      self[side].selection.receiveTraffic(by: flight.by, now: time)
    case .probe(let probe):
      _ = send(.reply(ProbeReply(number: probe.number, seen: flight.by.endpoint)), from: side, along: flight.by)
      self[side].selection.receive(probe, by: flight.by, isNewest: isNewest, now: time)
    case .reply(let reply):
      self[side].selection.receive(reply, now: time)
    }
    service(side)
  }

  // MARK: What came of it

  /// Who opened the stream that a side's traffic takes; nil where it takes none.
  func opener(_ side: Side) -> Side? {
    guard let path = self[side].selection.currentCandidate?.path, path.transport == TwinNetwork.stream else {
      return nil
    }
    return path.tag == 0 ? side : side.other
  }

  /// The state of the stream that this side lists.
  func ownStream(_ side: Side) -> PathState? {
    self[side].selection.candidates.first { $0.path == TwinNetwork.own(side) }?.state
  }

  var isIntact: Bool {
    Side.allCases.allSatisfy { self[$0].trafficSent - self[$0.other].trafficReceived <= 1 }
  }
}
