import Identity
import PacketIO

@testable import Keying

/// Two gateways that agree upon keys while somebody repeats, cuts and alters what they say, and one of them sends
/// authentic packets with whatever in them. Nothing traps, no key is begun twice, and left alone both have keys again.
let keyExchange = FuzzTarget(name: "KeyExchange") { input in
  var input = FuzzInput(input)
  var pair = FuzzedPair()
  pair.pass(rounds: 40)
  while !input.isEmpty {
    let choice = input.byte()
    let side = Int(choice >> 7)
    switch choice & 7 {
    case 0: pair.repeat(Int(input.byte()), to: side, flip: nil, cut: 0)
    case 1: pair.repeat(Int(input.byte()), to: side, flip: (input.number(), input.byte()), cut: 0)
    case 2: pair.repeat(Int(input.byte()), to: side, flip: nil, cut: Int(input.byte()))
    case 3: pair.wait(milliseconds: UInt64(input.number()))
    case 4: pair.act(side) { $0.rekey("other", now: $1) }
    case 5:
      let rounds = input.byte()
      if rounds & 0x80 != 0 { pair.move(side, to: rounds >> 3 & 15) }
      pair.pass(rounds: Int(rounds & 7))
    case 6: pair.act(side) { $0.want("other", now: $1) }
    default:
      let kind = HIPPacketKind(rawValue: input.byte()) ?? .update
      pair.forge(kind, from: side, input.bytes(Int(input.byte()) * 2))
    }
  }
  for _ in 0..<60 {
    pair.wait(milliseconds: 3000)
    pair.pass(rounds: 12)
  }
  require(pair.areJoined, "two that were left alone have no keys")
}

private struct FuzzedPair {
  private static let identities = [
    HostIdentity(p256Scalar: [UInt8](repeating: 3, count: 32), deterministic: true),
    HostIdentity(p256Scalar: [UInt8](repeating: 5, count: 32), deterministic: true),
  ]
  private var exchanges: [KeyExchange] = []
  private var now = MonotonicTime(nanoseconds: 1_000_000_000)
  private var underWay: [(to: Int, bytes: [UInt8])] = []
  private var seen: [[UInt8]] = []
  private var inbound: [[UInt32: TrafficKey]] = [[:], [:]]
  private var outbound: [TrafficKey?] = [nil, nil]
  private var begun: Set<[UInt8]> = []

  init() {
    for side in 0...1 {
      exchanges.append(KeyExchange(random: Numbers(seed: UInt64(side))))
      let partner = Partner(
        name: "other", local: FuzzedPair.identities[side], remote: FuzzedPair.identities[1 - side].tag,
        paths: [FuzzedPair.path(1 - side)])
      act(side) { $0.set(partner, now: $1) }
    }
  }

  private static func path(_ side: Int) -> Path {
    Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0201 + UInt32(side)), port: 4500))
  }

  var areJoined: Bool {
    (0...1).allSatisfy { side in outbound[side].map { inbound[1 - side][$0.spi] == $0 } ?? false }
  }

  mutating func act(_ side: Int, _ body: (inout KeyExchange, MonotonicTime) -> Void) {
    body(&exchanges[side], now)
    for action in exchanges[side].takeActions() {
      switch action {
      case .send(let bytes, _):
        require(HIPPacket(bytes) != nil && bytes.count <= 1200, "a malformed packet of \(bytes.count) bytes is sent")
        underWay.append((1 - side, bytes))
        if seen.count < 256 { seen.append(bytes) }
      case .installInbound(let keys, _): for key in keys { inbound[side][key.spi] = key }
      case .useOutbound(let keys, _):
        outbound[side] = keys.first
        for key in keys {
          let isNew = begun.insert(unsafe key.key.withBytes { unsafe [UInt8]($0) }).inserted
          require(isNew, "a key is begun twice")
        }
      case .stopSending: outbound[side] = nil
      case .retireInbound(let spis, _): for spi in spis { inbound[side][spi] = nil }
      case .report, .usePath, .located: break
      }
    }
    require(underWay.count < 4096, "they talk without end")
  }

  /// A side says that it is elsewhere; packets find it all the same.
  mutating func move(_ side: Int, to number: UInt8) {
    let other = Endpoint(address: IPAddress(v4: 0xC633_6400 + UInt32(number)), port: 4500)
    act(side) { $0.move(to: [other], now: $1) }
  }

  /// What is under way gets there, and so does a packet under the keys there are.
  mutating func pass(rounds: Int) {
    for _ in 0..<rounds {
      let packets = underWay
      underWay = []
      for packet in packets {
        act(packet.to) { $0.receive(packet.bytes, along: FuzzedPair.path(1 - packet.to), now: $1) }
      }
      for side in 0...1 {
        guard let key = outbound[side], inbound[1 - side][key.spi] == key else { continue }
        act(1 - side) { $0.opened(key.spi, from: "other", now: $1) }
      }
      wait(milliseconds: 5)
    }
  }

  mutating func wait(milliseconds: UInt64) {
    now = now.adding(nanoseconds: milliseconds * 1_000_000)
    for side in 0...1 { act(side) { $0.work(now: $1) } }
  }

  mutating func `repeat`(_ number: Int, to side: Int, flip: (Int, UInt8)?, cut: Int) {
    guard !seen.isEmpty else { return }
    var bytes = seen[number % seen.count]
    if let flip, !bytes.isEmpty { bytes[flip.0 % bytes.count] ^= flip.1 }
    bytes.removeLast(min(cut * 8, bytes.count))
    act(side) { $0.receive(bytes, along: FuzzedPair.path(1 - side), now: $1) }
  }

  /// An authentic packet of one side with parameters of somebody else's choice: a type, a length, content.
  mutating func forge(_ kind: HIPPacketKind, from side: Int, _ content: [UInt8]) {
    let (own, other) = (FuzzedPair.identities[side], FuzzedPair.identities[1 - side])
    guard let session = exchanges[side].session(with: other.tag) else { return }
    var builder = HIPBuilder(kind, from: own.tag, to: other.tag)
    var rest = content[...]
    var parameters: [(HIPParameter, [UInt8])] = []
    while let type = rest.popFirst(), let length = rest.popFirst() {
      let all = HIPParameter.allCases
      parameters.append((all[Int(type) % all.count], Array(rest.prefix(Int(length)))))
      rest = rest.dropFirst(Int(length))
    }
    let known = parameters.filter { $0.0.rawValue < HIPParameter.hipMAC.rawValue }.sorted {
      $0.0.rawValue < $1.0.rawValue
    }
    var last: UInt16 = 0
    for (type, content) in known where type.rawValue > last {
      builder.append(type, content)
      last = type.rawValue
    }
    builder.appendMAC(key: session.macKeys.sent, suite: session.suite)
    builder.appendSignature(by: own)
    if builder.isTooLong { return }
    act(1 - side) { $0.receive(builder.finish(), along: FuzzedPair.path(side), now: $1) }
  }
}

private struct Numbers: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state ^ (state >> 29)
  }
}
