import Glibc
import PacketIO

@testable import Relay
@testable import Transports

/// A whole relay, turn by turn, of whose one hairpin both sides are streams: what one gateway writes, however it is cut, the
/// other one reads; whole records of sealed packets and announced runs, and nothing else. What writes is whatever came.
///
/// For each piece one byte of its length and its bytes.
let relayStreams = FuzzTarget(name: "RelayStreams") { input in
  guard input.count < 20_000 else { return }
  var pieces = FuzzInput(input)
  relay.begin()
  var all: [UInt8] = []
  var found: [UInt8] = []
  while !pieces.isEmpty {
    let bytes = pieces.bytes(Int(pieces.byte()) + 1)
    guard !bytes.isEmpty, relay.isOpen(.first) else { break }
    relay.write(bytes)
    all += bytes
    found += relay.turns(4)
  }
  found += relay.turns(8)
  let expected = passedOn(RecordFramer.prefix + all)
  require(found == expected.bytes, "\(found) passed on, not \(expected.bytes)")
  require(relay.isOpen(.first) == expected.isGood, "the stream is \(expected.isGood ? "ended" : "still open")")
  // What is inside a run when its sender ends takes the partner with it; else it stays.
  relay.end()
  require(relay.server.streams.table.count == 0, "streams are left")
  require(relay.server.engine.io.pool.available == relay.idleBuffers, "buffers are lost")
}

/// What of a stream reaches the partner's, said simply, and whether the stream may go on.
private func passedOn(_ bytes: [UInt8]) -> (bytes: [UInt8], isGood: Bool) {
  var rest = bytes.dropFirst(RecordFramer.prefix.count)
  var passed: [UInt8] = []
  while rest.count >= 2 {
    let length = Int(rest[rest.startIndex]) << 8 | Int(rest[rest.startIndex + 1])
    if length < 2 { return (passed, false) }
    if rest.count < length { break }
    let record = Array(rest.prefix(length))
    rest = rest.dropFirst(length)
    let payload = Array(record.dropFirst(2))
    // What is for the relay itself begins with four zero bytes and "CHP"; what gateways say to each other is passed on.
    let isForRelay = payload.prefix(4).allSatisfy { $0 == 0 } && payload.dropFirst(4).starts(with: "CHP".utf8)
    if payload.count >= 4, !isForRelay { passed += record }
    if case .run(let count, _)? = HairpinMessage(payload) {
      passed += rest.prefix(Int(count))
      rest = rest.dropFirst(Int(count))
    }
  }
  return (passed, true)
}

/// One relay for all inputs, and two socket pairs in the place of its gateways' streams.
private struct Bench: ~Copyable {
  var server: HairpinServer
  private let hairpin: Int
  private var ends: [Int32] = []
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
    _ = turns(2)
    idleBuffers = self.server.engine.io.pool.available
  }

  /// Both gateways have opened their streams and proved themselves.
  mutating func begin() {
    ends = []
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
    for end in HairpinEnd.allCases { server.streams.close(SideIndex(hairpin: hairpin, end), &server.engine) }
    _ = turns(2)
  }

  func isOpen(_ end: HairpinEnd) -> Bool { server.engine.sides[SideIndex(hairpin: hairpin, end)].stream.place != nil }

  func write(_ bytes: [UInt8]) { _ = send(ends[0], bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)) }

  /// What the second gateway reads in so many turns.
  mutating func turns(_ count: Int) -> [UInt8] {
    var found: [UInt8] = []
    for _ in 0..<count {
      _ = server.turn(waiting: 0) { [clock] in clock }
      guard ends.count == 2 else { continue }
      while true {
        let count = recv(ends[1], &buffer, buffer.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { break }
        found += buffer[..<count]
      }
      // What is answered to the first is nobody's concern.
      _ = recv(ends[0], &buffer, buffer.count, Int32(MSG_DONTWAIT))
    }
    return found
  }
}

nonisolated(unsafe) private var relay: Bench = {
  do { return try Bench() } catch { fatalError("\(error)") }
}()
