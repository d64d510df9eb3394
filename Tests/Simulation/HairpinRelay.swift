import PacketIO
import TestSupport

@testable import Relay
@testable import Transports

/// A relay without a kernel: state, admission and forwarding are the real ones; ports are numbers, and what leaves them is
/// taken by the network. What a bandwidth does not let in yet waits here, as it would in a socket.
struct HairpinRelay: HairpinHost, ~Copyable {
  /// What leaves a port.
  struct Departure {
    var bytes: [UInt8]
    var port: UInt16
    var to: Endpoint
    /// What it came in by, if it is not the relay's own word.
    var flight: Flight?
  }

  /// What a test breaks on purpose.
  enum Sabotage { case losesPackets, confusesHairpins, servesAnybody }

  static let endpoint = Endpoint(address: IPAddress(v4: 0xC612_6401), port: HairpinTicketFile.standardPort)
  private static let ports: ClosedRange<UInt16> = 21_000...21_999
  private static let sweepInterval: UInt64 = 50_000_000
  /// Datagrams that wait at a port.
  private static let mostWaiting = 200
  private static let nameBytes = 64

  let policy: RelayPolicy? = nil
  var state: EngineState
  private var admission: Admission
  private let pool = BufferPool(count: 1)
  private var random: SeededNumbers
  private var sides: [UInt16: SideIndex] = [:]
  private var waiting: [SideIndex: [[Flight]]] = [:]
  private var nextSweep: MonotonicTime
  /// Of the message that is being forwarded, what was not sent yet.
  private var current: [Flight] = []
  private(set) var departures: [Departure] = []
  private(set) var lost: [Flight] = []
  private(set) var forwarded: UInt64 = 0
  var sabotage: Sabotage?

  init(_ options: HairpinProxyOptions, clock: HairpinClock, seed: UInt64) {
    random = SeededNumbers(seed: seed)
    state = EngineState(options, clock: clock)
    admission = Admission(options, cookies: HairpinCookies(secret: random.bytes(32)), now: clock.monotonic)
    nextSweep = clock.monotonic
  }

  /// When there is something to do.
  mutating func deadline() -> MonotonicTime {
    let now = state.clock.monotonic
    return now.adding(nanoseconds: max(state.waitLimit(nextSweep.nanoseconds(since: now)), 1000))
  }

  /// What was made since the last call.
  mutating func takeMade() -> (departures: [Departure], lost: [Flight]) {
    defer { (departures, lost) = ([], []) }
    return (departures, lost)
  }

  // MARK: What comes

  mutating func work(_ clock: HairpinClock) {
    state.clock = clock
    serve()
    guard clock.monotonic >= nextSweep else { return }
    nextSweep = clock.monotonic.adding(nanoseconds: HairpinRelay.sweepInterval)
    sweepHairpins(64)
  }

  /// Datagrams of one size and origin, which came together to one port.
  mutating func receive(_ flights: [Flight], _ clock: HairpinClock) {
    state.clock = clock
    let port = flights[0].destination.port
    guard port != HairpinRelay.endpoint.port else {
      for flight in flights { answer(flight) }
      return
    }
    guard let side = sides[port] else {
      lost += flights
      return
    }
    guard !state.mayPush(side) else { return take(flights, side) }
    if waiting[side, default: []].count < HairpinRelay.mostWaiting {
      waiting[side, default: []].append(flights)
    } else {
      lost += flights
    }
    state.markReady(side)
    serve()
  }

  private mutating func answer(_ flight: Flight) {
    guard flight.datagram.count <= HairpinMessage.mostBytes else { return lost.append(flight) }
    let control = Admission.ControlAddress(
      listen: 0, address: HairpinRelay.endpoint.address, port: HairpinRelay.endpoint.port)
    if let answer = answer(flight.datagram, flight.source, toControl: control, .udp) {
      departures.append(Departure(bytes: answer.bytes, port: control.port, to: flight.source))
    }
  }

  /// In the order of the schedule, while there is bandwidth.
  private mutating func serve() {
    state.schedule.wake(now: state.clock.monotonic)
    while let side = state.nextSide() {
      guard state.sides[side].port.isAllocated, let limit = state.allowance(side) else { continue }
      let messages = waiting[side, default: []].prefix(limit)
      waiting[side, default: []].removeFirst(messages.count)
      for message in messages { take(message, side) }
      if waiting[side]?.isEmpty == false { state.markReady(side) }
    }
  }

  private mutating func take(_ flights: [Flight], _ side: SideIndex) {
    guard let buffer = pool.take() else { fatalError("an empty pool") }
    defer { pool.release(buffer) }
    let (bytes, name) = (pool.bytes(buffer), Self.name(flights[0].source))
    bytes.copy(name, to: 0)
    var end = HairpinRelay.nameBytes
    for flight in flights {
      bytes.copy(flight.datagram, to: end)
      end += flight.datagram.count
    }
    if sabotage == .servesAnybody, state.sides[side].holder.isProven {
      state.sides[side].holder.name = SocketName(flights[0].source)
    }
    current = flights
    let message = RelayIO.Message(
      buffer: buffer, bytes: bytes.slice(HairpinRelay.nameBytes, end - HairpinRelay.nameBytes),
      segmentSize: max(flights[0].datagram.count, 1), trafficClass: 0, isTruncated: false,
      name: bytes.slice(0, name.count), control: bytes.slice(0, 0))
    charge(side, forward(message, side))
    lost += current
    current = []
  }

  /// As the kernel writes an IPv4 address.
  private static func name(_ endpoint: Endpoint) -> [UInt8] {
    var name: [UInt8] = [2, 0]
    name.append(number: endpoint.port)
    name.append(number: endpoint.address.v4)
    return name + [UInt8](repeating: 0, count: 8)
  }

  // MARK: What goes

  mutating func stage(_ run: ForwardBatch.Run, _ side: SideIndex) {
    var partner = side.partner
    if sabotage == .confusesHairpins, random.chance(20) {
      partner = SideIndex(place: (partner.place + 2) % state.sides.count)
    }
    for segment in run.segments {
      let bytes = run.bytes.slice(segment.start, segment.length).array()
      // What is in between was the relay's.
      while let first = current.first, first.datagram != bytes { lost.append(current.removeFirst()) }
      guard !current.isEmpty else { return }
      if sabotage == .losesPackets, random.chance(20) { continue }
      guard state.sides[partner].holder.isProven else {
        state.account(side, packets: 1, octets: 0, isTaken: nil)
        continue
      }
      let port = state.sides[partner].port.number
      let to = state.sides[partner].holder.name.endpoint
      departures.append(Departure(bytes: bytes, port: port, to: to, flight: current.removeFirst()))
      state.account(side, packets: 1, octets: bytes.count, isTaken: true)
      forwarded += 1
    }
  }

  mutating func decide<Value>(_ body: (inout Admission, inout EngineState) -> Value) -> Value {
    body(&admission, &state)
  }

  mutating func open(
    _ side: SideIndex, _ encapsulation: Encapsulation, for control: Admission.ControlAddress
  ) -> HairpinReason? {
    guard encapsulation == .udp else { return .encapsulationNotAllowed }
    let free = HairpinRelay.ports.filter { sides[$0] == nil }
    guard let number = free.randomElement(using: &random) else { return .noPort }
    state.open(side, encapsulation, number, at: control.address, listen: 0, token: .random(using: &random))
    sides[number] = side
    return nil
  }

  mutating func release(_ side: SideIndex) {
    sides[state.sides[side].port.number] = nil
    lost += (waiting.removeValue(forKey: side) ?? []).joined()
    state.close(side)
  }

  mutating func tell(_ side: SideIndex, _ bytes: [UInt8]) {
    _ = say(bytes, from: side, to: state.sides[side].holder.name)
  }

  mutating func say(_ bytes: [UInt8], from side: SideIndex, to name: SocketName) -> Bool {
    departures.append(Departure(bytes: bytes, port: state.sides[side].port.number, to: name.endpoint))
    return true
  }

  // MARK: The end

  /// Ends all hairpins, of which their gateways are told.
  mutating func close(_ clock: HairpinClock) {
    state.clock = clock
    for place in 0..<state.sides.count / 2 { finish(place, .stopping) }
  }

  mutating func takeWaiting() -> [Flight] {
    defer { waiting = [:] }
    return waiting.sorted { $0.key.place < $1.key.place }.flatMap { $0.value.joined() }
  }

  /// Nil, or what is wrong with its books.
  var complaint: String? {
    let counted = state.statistics[.forwardedPackets]
    return counted == forwarded ? nil : "the relay has forwarded \(forwarded) packets, and counts \(counted)"
  }
}
