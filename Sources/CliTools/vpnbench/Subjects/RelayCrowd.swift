import Identity
import Lab
import PacketIO
import Relay
import Transports

/// Gateways that enrol at an identity relay without a dataplane: one sends, all others are at the sink's address, and each has
/// announced an SPI. So there are as many pairs as others, and packets under any of them arrive at the sink.
struct RelayCrowd {
  static let relay = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 4600)
  static let sourcePort: UInt16 = 4650
  static let sinkPort: UInt16 = 4700

  let identity = HostIdentity.generate(.ed25519)
  private let source = HostIdentity.generate(.ed25519)
  private let others: [HostIdentity]

  init(pairs: Int) { others = (0..<pairs).map { _ in HostIdentity.generate(.ed25519) } }

  /// The SPI that leads to the gateway of that number.
  static func spi(_ number: Int) -> UInt32 { UInt32(truncatingIfNeeded: number + 1) << 12 | 1 }

  var options: HairpinProxyOptions {
    var options = HairpinProxyOptions(listen: [RelayCrowd.relay], publicKeys: [])
    options.hairpins = 1
    options.messagesPerOrigin = 10_000_000
    var relay = RelayOptions(identity: identity)
    for other in others { relay.policy.allow(source.tag, other.tag) }
    relay.gateways = others.count + 1
    // One gateway may have half.
    relay.pairs = 2 * others.count + 16
    relay.signatures = 1_000_000
    relay.enrolments = 1_000_000
    relay.enrolmentsPerOrigin = 1_000_000
    relay.silence = 3600
    options.relay = relay
    return options
  }

  /// Enrols all and announces all SPIs.
  /// - Throws: `LabError` when the relay does not take one.
  func enter() throws {
    let (mine, theirs) = try (Line(RelayCrowd.sourcePort), Line(RelayCrowd.sinkPort))
    try mine.enrol(source, at: identity)
    for (number, other) in others.enumerated() {
      try theirs.enrol(other, at: identity)
      var info: [UInt8] = [0, 0, 0, 160, 0, 0, 0, 0]
      info.append(number: RelayCrowd.spi(number))
      var update = HIPBuilder(.update, from: other.tag, to: source.tag)
      update.append(.espInfo, info)
      update.appendSignature(by: other)
      theirs.say([0, 0, 0, 0] + update.finish())
      // It comes to the source, so it has passed.
      guard mine.hear() != nil else { throw LabError("an announcement did not pass the relay") }
    }
  }

  /// A socket of the two.
  private final class Line {
    private let socket: Int32
    private let pool = BufferPool(count: 1)

    init(_ port: UInt16) throws {
      let endpoint = Endpoint(address: RelayCrowd.relay.address, port: port)
      socket = UDPSocket.open(endpoint, waits: false, bufferSize: 1 << 20)
      guard socket >= 0 else { throw LabError("\(endpoint) is taken") }
    }

    deinit { KernelSocket.close(socket) }

    func say(_ bytes: [UInt8]) { _ = UDPSocket.send(socket, bytes, to: SocketName(RelayCrowd.relay)) }

    func hear() -> [UInt8]? {
      let limit = monotonicSeconds() + 2
      while monotonicSeconds() < limit {
        let count = TCPSocket.receive(socket, into: pool.bytes(0))
        if count > 0 { return pool.bytes(0).slice(0, count).array() }
        pause(seconds: 0.000_02)
      }
      return nil
    }

    func enrol(_ gateway: HostIdentity, at relay: HostIdentity) throws {
      var random = SystemRandomNumberGenerator()
      let nonce = HairpinNumber.random(using: &random)
      say(HairpinMessage.hello(nonce: nonce, token: .zero).encoded)
      guard case .challenge(nonce, let cookie)? = hear().flatMap({ HairpinMessage($0) }) else {
        throw LabError("the relay does not answer")
      }
      let key = gateway.publicIdentity
      var enrol = EnrolmentMessage.Enrol(
        nonce: nonce, cookie: cookie, token: .zero, sequence: 1,
        identity: .init(algorithm: key.algorithm, hostIdentity: key.hostIdentity),
        signature: [UInt8](repeating: 0, count: 64))
      let proof = EnrolmentMessage.proof(
        ofEnrol: EnrolmentMessage.enrol(enrol).encoded, signature: 64, relay: relay.tag.bytes)
      enrol.signature = gateway.sign(proof)
      say(EnrolmentMessage.enrol(enrol).encoded)
      guard case .enrolled? = hear().flatMap({ EnrolmentMessage($0) }) else {
        throw LabError("the relay does not take an enrolment")
      }
    }
  }
}
