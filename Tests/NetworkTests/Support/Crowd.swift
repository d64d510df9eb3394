import Glibc
import PacketIO
import Synchronization

@testable import Dataplane
@testable import Lab

/// Who abuses the gateway, from the namespace of the partner who works.
final class Crowd: Sendable {
  private let isOver = Atomic(false)
  private let hasLeft = Atomic(false)
  private let sequence = Atomic<UInt64>(0)
  let forger = Mutex(Forger(Crowd.inbound))
  let done = Atomic(0)

  static let prefix = "10.80.0.0/12"
  static let addresses = (3..<20).map { "192.0.2.\($0)" }
  static let inbound = association(0x3003, 5)
  static let outbound = association(0x4004, 6)

  private static func association(_ spi: UInt32, _ key: UInt8) -> SecurityAssociationConfiguration {
    SecurityAssociationConfiguration(
      spi: spi, cipher: .aes128GCM, key: KeyMaterial([UInt8](repeating: key, count: 20)))
  }

  var goesOn: Bool { !isOver.load(ordering: .relaxed) }
  func stop() { isOver.store(true, ordering: .relaxed) }
  /// Does not come again.
  func leave() { hasLeft.store(true, ordering: .relaxed) }
  var mayComeAgain: Bool { !hasLeft.load(ordering: .relaxed) }
  func begin() {
    isOver.store(false, ordering: .relaxed)
    done.store(0, ordering: .relaxed)
  }
  func count() { done.add(1, ordering: .relaxed) }

  func seal(_ plain: [UInt8], nextHeader: UInt8) -> [UInt8] {
    forger.withLock {
      $0.seal(
        inner: plain, nextHeader: nextHeader,
        sequence: sequence.add(1, ordering: .relaxed).newValue)
    }
  }

  /// An echo request to the gateway itself, which answers with as much.
  func ping(bytes: Int = 1200, identifier: Int = 0x0707) -> [UInt8] {
    seal(Crowd.echo(bytes: bytes, identifier: identifier), nextHeader: 4)
  }

  /// Where the gateway's host sends back what comes.
  static let echoPort: UInt16 = 7007

  /// To there, from ever another port.
  func question(_ number: Int) -> [UInt8] {
    let port = 1024 + number % 60_000
    let ports = [port, Int(Crowd.echoPort), 12, 0].flatMap { [UInt8($0 >> 8 & 255), UInt8($0 & 255)] }
    return seal(Crowd.packet(ports + [1, 2, 3, 4], transport: 17), nextHeader: 4)
  }

  /// The first fragment of a datagram whose rest does not come, to a host that is not there.
  func fragment(_ number: Int) -> [UInt8] {
    let message: [UInt8] = [8, 0, 0, 0, 7, 7, 0, 1] + [UInt8](repeating: 9, count: 16)
    return seal(
      Crowd.packet(message, identification: number, fragment: 0x2000, to: [10, 99, 0, 9]), nextHeader: 4)
  }

  /// The first half of a packet that may share others' (RFC 9347).
  func half() -> [UInt8] {
    let packet = Crowd.echo(bytes: 64, identifier: 7)
    return seal([0, 0, 0, 0] + packet.prefix(packet.count / 2), nextHeader: 144)
  }

  func probe() -> [UInt8] { control(1, [UInt8](repeating: 7, count: 16) + [0, 1]) }

  /// Wants as much of the pool as there is, and half of it, and half of that, each for a part of his own network.
  func offers(_ revision: Int) -> [UInt8] {
    let lengths = revision % 2 == 0 ? [12, 13, 14] : [13, 14, 15]
    let offers = lengths.map { length in
      AddressMessage.Offer(
        prefix: Prefix(IPAddress(v4: 0x0A50_0000), length: length),
        kind: .proposed(Prefix(IPAddress(v4: 0x6470_0000), length: length)))
    }
    let message = AddressMessage(
      wantsReply: true, session: 7, revision: UInt32(truncatingIfNeeded: revision + 1), offers: offers)
    return control(AddressMessage.type, message.encoded())
  }

  private func control(_ type: UInt8, _ body: [UInt8]) -> [UInt8] {
    seal([0x43, 0x55, 0x4C, 0x56, 1, type, 0, UInt8(body.count)] + body, nextHeader: 59)
  }

  private static func echo(bytes: Int, identifier: Int) -> [UInt8] {
    let word = [UInt8(identifier >> 8 & 255), UInt8(identifier & 255)]
    return packet(completed([8, 0, 0, 0] + word + [0, 1] + [UInt8](repeating: 9, count: bytes)))
  }

  private static func packet(
    _ message: [UInt8], transport: UInt8 = 1, identification: Int = 1, fragment: Int = 0,
    to address: [UInt8] = [10, 77, 0, 2]
  ) -> [UInt8] {
    let words = [20 + message.count, identification, fragment].flatMap { [UInt8($0 >> 8 & 255), UInt8($0 & 255)] }
    var header: [UInt8] = [0x45, 0] + words + [64, transport, 0, 0, 10, 88, 0, 1] + address
    complete(&header, at: 10)
    return header + message
  }

  static func completed(_ message: [UInt8]) -> [UInt8] {
    var message = message
    complete(&message, at: 2)
    return message
  }

  private static func complete(_ bytes: inout [UInt8], at place: Int) {
    var sum = stride(from: 0, to: bytes.count, by: 2).reduce(0) { $0 + (Int(bytes[$1]) << 8 | Int(bytes[$1 + 1])) }
    while sum > 0xFFFF { sum = sum >> 16 + sum & 0xFFFF }
    (bytes[place], bytes[place + 1]) = (UInt8(~sum >> 8 & 255), UInt8(~sum & 255))
  }

  static func record(_ datagram: [UInt8]) -> [UInt8] {
    [UInt8((datagram.count + 2) >> 8), UInt8((datagram.count + 2) & 255)] + datagram
  }

  /// A stream to the gateway; nil: refused.
  func stream(from address: String) -> Socket? {
    guard let socket = try? Socket(.stream, isV6: false),
      (try? socket.set(Int(SOL_SOCKET), SO_RCVBUF, 4096, "SO_RCVBUF")) != nil,
      (try? socket.setTimeout(0.2)) != nil,
      (try? socket.bind(Lab.Endpoint(address, port: 0))) != nil,
      (try? socket.connect(Lab.Endpoint(Side.b.outer4, port: 4500))) != nil
    else { return nil }
    return socket
  }

  func datagrams(from address: String) throws -> Socket {
    let socket = try Socket(.datagram, isV6: false)
    try socket.bind(Lab.Endpoint(address, port: 0))
    try socket.connect(Lab.Endpoint(Side.b.outer4, port: 4500))
    return socket
  }

  /// False: the gateway takes no more.
  @discardableResult
  func send(_ bytes: [UInt8], by socket: Socket) -> Bool {
    let buffer = LabBuffer(count: bytes.count)
    buffer.store(bytes)
    return socket.send(buffer, 0, bytes.count) == bytes.count
  }
}
