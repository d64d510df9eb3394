import Identity
import PacketIO
import TestSupport

@testable import Relay
@testable import Transports

/// An identity relay in memory, gateways that speak to it, and a clock of the tests' own.
final class RelaySites {
  /// A gateway: who it is, and where.
  struct Site {
    let identity: HostIdentity
    var endpoint: Endpoint
    var sequence: UInt64 = 1
    var token = HairpinNumber.zero

    var tag: HostIdentityTag { identity.tag }
  }

  static let port: UInt16 = 4500
  var relay: IdentityRelay
  let identity: HostIdentity
  let cookies: HairpinCookies
  var clock = HairpinClock(monotonic: MonotonicTime(nanoseconds: 1 << 50), wall: 1_800_000_000)
  var sites: [Site]

  /// - Parameters:
  ///   - count: of gateways, none of them enrolled; each knows nobody but by `allow`.
  ///   - kind: of the relay's key.
  init(_ count: Int, kind: HostIdentity.Kind = .p256, change: (inout RelayOptions, [Site]) -> Void = { _, _ in }) {
    identity = .generate(kind)
    sites = (0..<count).map { number in
      // Every other one by IPv6.
      let address =
        number % 2 == 0
        ? IPAddress(v4: 0x0A00_0001 + UInt32(number))
        : IPAddress(v6High: 0x2001_0DB8_0000_0000 + UInt64(number) << 16, low: UInt64(number))
      return Site(
        identity: .generate(number % 3 == 2 ? .ed25519 : .p256), endpoint: Endpoint(address: address, port: 4500))
    }
    var options = RelayOptions(identity: identity)
    (options.gateways, options.pairs) = (64, 64)
    change(&options, sites)
    cookies = HairpinCookies(secret: [UInt8](repeating: 7, count: 32))
    relay = IdentityRelay(options, cookies: cookies, now: clock.monotonic, random: SeededNumbers(seed: 1))
  }

  func wait(_ seconds: Double) {
    clock.monotonic = clock.monotonic.adding(nanoseconds: UInt64(seconds * 1e9))
    clock.wall += Int64(seconds)
  }

  // MARK: Enrolment

  /// A right enrolment, with what a test wants otherwise.
  func enrolment(
    _ number: Int, at endpoint: Endpoint? = nil, relay: HostIdentityTag? = nil,
    _ change: (inout EnrolmentMessage.Enrol) -> Void = { _ in }, forge: (inout [UInt8]) -> Void = { _ in }
  ) -> (enrol: EnrolmentMessage.Enrol, bytes: [UInt8]) {
    let site = sites[number]
    let key = site.identity.publicIdentity
    let nonce = HairpinNumber(high: 77, low: UInt64(number))
    var enrol = EnrolmentMessage.Enrol(
      nonce: nonce,
      cookie: cookies.cookie(endpoint ?? site.endpoint, nonce: nonce, port: Self.port, now: clock.monotonic),
      token: site.token, sequence: site.sequence,
      identity: .init(algorithm: key.algorithm, hostIdentity: key.hostIdentity))
    change(&enrol)
    enrol.signature = [UInt8](repeating: 0, count: 64)
    let blank = EnrolmentMessage.enrol(enrol).encoded
    enrol.signature = site.identity.sign(
      EnrolmentMessage.proof(ofEnrol: blank, signature: 64, relay: (relay ?? identity.tag).bytes))
    forge(&enrol.signature)
    return (enrol, EnrolmentMessage.enrol(enrol).encoded)
  }

  /// What the relay answers to it.
  func say(_ enrolment: (enrol: EnrolmentMessage.Enrol, bytes: [UInt8]), from endpoint: Endpoint) -> [UInt8]? {
    relay.answer(enrolment.enrol, enrolment.bytes, from: endpoint, port: (0, Self.port), clock)
  }

  /// Enrols a gateway from where it is.
  @discardableResult func enrol(_ number: Int) -> EnrolmentMessage.Enrolled? {
    sites[number].sequence += 1
    guard let answer = say(enrolment(number), from: sites[number].endpoint),
      case .enrolled(let enrolled) = EnrolmentMessage(answer)
    else { return nil }
    sites[number].token = enrolled.token
    return enrolled
  }

  // MARK: Handshakes

  /// A packet of one gateway to another, signed by the first, or by somebody else.
  func packet(
    _ kind: HIPPacketKind, _ from: Int, _ to: Int, spis: [UInt32] = [], signer: Int? = nil, seq: UInt32? = nil,
    padding: Int = 0
  ) -> [UInt8] {
    var builder = HIPBuilder(kind, from: sites[from].tag, to: sites[to].tag)
    for spi in spis {
      var info: [UInt8] = [0, 0, 0, 160, 0, 0, 0, 0]
      info.append(number: spi)
      builder.append(.espInfo, info)
    }
    if let seq {
      var content: [UInt8] = []
      content.append(number: seq)
      builder.append(.seq, content)
    }
    if kind == .i1 { builder.append(.dhGroupList, [253]) }
    if padding > 0 { builder.append(.pad, [UInt8](repeating: 0, count: padding)) }
    if kind != .i1 { builder.appendSignature(by: sites[signer ?? from].identity) }
    return builder.finish()
  }

  func observe(_ packet: [UInt8], from endpoint: Endpoint) -> IdentityRelay.Outcome {
    withBytes(packet) { packet in
      withName(endpoint) { name in relay.observe(packet, from: .datagram(name), clock) }
    }
  }

  /// One gateway says to another under which SPI it takes packets.
  @discardableResult
  func announce(_ from: Int, _ to: Int, _ spi: UInt32, kind: HIPPacketKind = .i2) -> IdentityRelay.Outcome {
    observe(packet(kind, from, to, spis: [spi]), from: sites[from].endpoint)
  }

  /// Where a sealed packet goes from there.
  func route(_ spi: UInt32, from endpoint: Endpoint) -> IdentityRelay.Route {
    withName(endpoint) { relay.route(spi, from: .datagram($0)) }
  }

  /// The gateway that packets under an SPI from another one go to; nil: nobody.
  func receiver(_ spi: UInt32, from number: Int) -> Int? {
    guard case .forward(_, _, let place) = route(spi, from: sites[number].endpoint) else { return nil }
    return sites.firstIndex { relay.places.place(of: $0.tag) == place }
  }

  // MARK: What it has, as values: its parts cannot be copied

  var enrolled: Int { relay.places.enrolled }
  var associations: Int { relay.pairs.table.count }
  var pairs: Int { relay.pairs.count }
  func place(_ number: Int) -> Int? { relay.places.place(of: sites[number].tag) }
  func address(_ number: Int) -> Endpoint? {
    guard let place = place(number) else { return nil }
    return relay.places.addresses[place].name.endpoint
  }
  func tag(at place: Int) -> HostIdentityTag { relay.places[place].identity.tag }
  func hold(_ token: HairpinNumber, from endpoint: Endpoint) -> [UInt8]? {
    relay.answerHold(token, from: endpoint, now: clock.monotonic)
  }
  func ask(byStream: Bool = false, side: Int?, length: Int) -> [UInt8]? {
    relay.who(
      Endpoint(address: IPAddress(v4: 1 << 30), port: 9), port: Self.port, byStream: byStream, side: side,
      length: length, now: clock.monotonic)
  }
  /// - Parameter number: which stranger.
  func admitsStranger(_ number: Int = 0, byStream: Bool) -> Bool {
    relay.admitsStranger(
      at: IPAddress(v4: 0x0A02_0000 + UInt32(truncatingIfNeeded: number)), byStream: byStream, now: clock.monotonic)
  }
  func admits(_ bytes: Int, _ side: Int) -> Bool { relay.admits(bytes, to: side, now: clock.monotonic) }
  /// Has the relay be so busy, from 0 to 1.
  func set(load: Double) {
    relay.load.note(RelayLoad.Reading(at: clock.monotonic, busy: 0, bytes: 0), pairs: load)
  }
  /// What has waited long enough, and where it goes.
  func due() -> [(place: Int, packet: [UInt8])] { relay.takeDue(clock).map { ($0.place, $0.packet) } }
  var waiting: Int { relay.waiting.count }
  /// A second's worth of sweeps.
  func sweep() { for _ in 0..<20 { _ = relay.sweep(clock) } }

  /// What has been counted as dropped, all reasons together.
  var drops: UInt64 { RelayDrop.allCases.reduce(0) { $0 + relay.statistics[$1] } }
}

/// Lends bytes as packets are held.
func withBytes<R>(_ bytes: [UInt8], _ body: (PacketBytes) -> R) -> R {
  var bytes = bytes
  return bytes.withUnsafeMutableBytes { body(PacketBytes($0.baseAddress!, count: $0.count)) }
}

/// Lends an address as the kernel writes it.
func withName<R>(_ endpoint: Endpoint, _ body: (PacketBytes) -> R) -> R {
  var name = SocketName(endpoint)
  return withUnsafeMutableBytes(of: &name) { body(PacketBytes($0.baseAddress!, count: $0.count)) }
}
