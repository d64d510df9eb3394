import Glibc
import PacketIO

@testable import Relay
@testable import Transports

/// A whole relay, turn by turn, of whose one hairpin both sides are streams: what either gateway writes, however it is cut,
/// the other one reads; whole records of sealed packets and announced runs, between them what the relay itself has to say,
/// and nothing else. What they write is whatever came.
///
/// For each piece a byte of whose it is, whether the relay turns before the next, and how long it is; and its bytes.
let relayStreams = FuzzTarget(name: "RelayStreams") { input in
  guard input.count < 20_000 else { return }
  var pieces = FuzzInput(input)
  relay.begin()
  while !pieces.isEmpty {
    let head = Int(pieces.byte())
    let length = head & 63
    let bytes = pieces.bytes(length < 60 ? length + 1 : (length - 59) * 1000)
    guard !bytes.isEmpty else { break }
    relay.write(bytes, by: head & 128 == 0 ? .first : .second)
    if head & 64 == 0 { relay.turns(4) }
  }
  relay.turns(8)
  let passed = relay.written.map { passedOn(RecordFramer.prefix + $0) }
  for end in HairpinEnd.allCases {
    let (own, other) = (passed[Int(end.rawValue)], passed[Int(end.other.rawValue)])
    let found = relay.read[Int(end.rawValue)]
    let isWhole = follows(other.units, found, mayEnd: !own.isGood)
    require(isWhole, "\(end) has read \(found), and \(other.units) was passed on")
    // Once one has gone, what the other announces is no run any more.
    if other.isGood {
      require(relay.isOpen(end) == own.isGood, "\(end)'s stream is \(own.isGood ? "ended" : "still open")")
    }
  }
  // What is inside a run when its sender ends takes the partner with it; else it stays.
  relay.end()
  require(relay.server.streams.table.count == 0, "streams are left")
  require(relay.server.engine.io.pool.available == relay.idleBuffers, "buffers are lost")
}

/// What of a stream reaches the partner's, said simply: records and runs. And whether the stream may go on.
private func passedOn(_ bytes: [UInt8]) -> (units: [[UInt8]], isGood: Bool) {
  var rest = bytes.dropFirst(RecordFramer.prefix.count)
  var passed: [[UInt8]] = []
  while rest.count >= 2 {
    let length = Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1])
    if length < 2 { return (passed, false) }
    if rest.count < length { break }
    let record = Array(rest.prefix(length))
    rest = rest.dropFirst(length)
    let payload = Array(record.dropFirst(2))
    if payload.count >= 4, !isOfRelay(record[...]) { passed.append(record) }
    if case .run(let count, _)? = HairpinMessage(payload) {
      passed.append(Array(rest.prefix(Int(count))))
      rest = rest.dropFirst(Int(count))
    }
  }
  return (passed, true)
}

/// What is for the relay itself, or from it, begins with four zero bytes and "CHP"; what gateways say to each other does not.
private func isOfRelay(_ record: ArraySlice<UInt8>) -> Bool {
  let payload = record.dropFirst(2)
  return payload.prefix(4).allSatisfy { $0 == 0 } && payload.dropFirst(4).starts(with: "CHP".utf8)
}

/// Whether what was read is these units, one after the other, and between them records of the relay.
/// - Parameter mayEnd: it need not be all of them.
private func follows(_ units: [[UInt8]], _ read: [UInt8], mayEnd: Bool) -> Bool {
  var rest = read[...]
  var next = units.filter { !$0.isEmpty }[...]
  while !rest.isEmpty {
    if let unit = next.first, rest.starts(with: unit) {
      rest = rest.dropFirst(unit.count)
      next = next.dropFirst()
      continue
    }
    let length = rest.count >= 2 ? Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1]) : 0
    let record = rest.prefix(length)
    if record.count >= 9, record.count == length, isOfRelay(record) {
      rest = rest.dropFirst(length)
      continue
    }
    return mayEnd && next.first?.starts(with: rest) ?? false
  }
  return mayEnd || next.isEmpty
}

/// One relay for all inputs, and two socket pairs in the place of its gateways' streams.
private struct Bench: ~Copyable {
  var server: HairpinServer
  private let hairpin: Int
  private var ends: [Int32] = []
  /// By each gateway.
  private(set) var written: [[UInt8]] = [[], []]
  private(set) var read: [[UInt8]] = [[], []]
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)
  private let clock: HairpinClock
  private(set) var idleBuffers = 0

  init() throws {
    var options = HairpinProxyOptions(listen: [], publicKeys: [])
    options.hairpins = 1
    options.unprovenStreams = 2
    clock = HairpinClock(monotonic: .current(), wall: 1000)
    var server = try HairpinServer(options, clock: clock)
    var random = SystemRandomNumberGenerator()
    guard let key = HairpinPrivateKey.generate(using: &random) else { fatalError("no key") }
    let party = HairpinTicket.Party(name: "a", encapsulations: [.tcp], key: key.publicKey)
    let ticket = HairpinTicket(
      number: .random(using: &random), first: party, second: party, notBefore: 0, notAfter: .max)
    guard let hairpin = server.admission.begin(ticket, clock) else { fatalError("no hairpin") }
    self.hairpin = hairpin
    for end in HairpinEnd.allCases {
      let side = SideIndex(hairpin: hairpin, end)
      server.engine.sides[side].port.isAllocated = true
      server.engine.sides[side].port.encapsulation = .tcp
    }
    self.server = server
    turns(2)
    idleBuffers = self.server.engine.io.pool.available
  }

  /// Both gateways have opened their streams and proved themselves.
  mutating func begin() {
    ends = []
    (written, read) = ([[], []], [[], []])
    for end in HairpinEnd.allCases {
      var pair: [Int32] = [-1, -1]
      guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
        fatalError("no sockets")
      }
      let remote = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 1)
      guard let place = server.streams.table.accepted(pair[0], from: remote, deadline: clock.monotonic) else {
        fatalError("no place for a stream")
      }
      // Its prefix came with what it proved.
      server.streams.table[place].framer = RecordFramer(isOriginator: true)
      let side = SideIndex(hairpin: hairpin, end)
      server.ports[place] = .side(side)
      server.streams.adopt(place, side, &server.engine)
      // The clock stands still, and short runs count as messages.
      server.engine.sides[side].messages = TokenBucket(perSecond: 1, burst: 1 << 20)
      ends.append(pair[1])
    }
  }

  mutating func end() {
    for end in ends { close(end) }
    ends = []
    for end in HairpinEnd.allCases { server.streams.close(SideIndex(hairpin: hairpin, end), &server.engine) }
    turns(2)
  }

  func isOpen(_ end: HairpinEnd) -> Bool { server.engine.sides[SideIndex(hairpin: hairpin, end)].stream.place != nil }

  mutating func write(_ bytes: [UInt8], by end: HairpinEnd) {
    let place = Int(end.rawValue)
    guard send(ends[place], bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)) == bytes.count else { return }
    written[place] += bytes
  }

  mutating func turns(_ count: Int) {
    for _ in 0..<count {
      _ = server.turn(waiting: 0) { [clock] in clock }
      for (place, end) in ends.enumerated() {
        while true {
          let count = recv(end, &buffer, buffer.count, Int32(MSG_DONTWAIT))
          guard count > 0 else { break }
          read[place] += buffer[..<count]
        }
      }
    }
  }
}

nonisolated(unsafe) private var relay: Bench = {
  do { return try Bench() } catch { fatalError("\(error)") }
}()
