import Glibc
import Identity
import PacketIO
import TransportSupport

@testable import Relay
@testable import Transports

/// A gateway at an identity relay that says what a test wants, in datagrams or by a stream.
final class RelayGuest {
  let identity: HostIdentity
  let isStream: Bool
  private let descriptor: Int32
  private var arrived: [UInt8] = []
  private var unsent: [UInt8] = []
  /// What has come and was not taken out: datagrams, or contents of records.
  private(set) var inbox: [[UInt8]] = []
  private(set) var hasEnded = false
  private(set) var token = HairpinNumber.zero
  private static nonisolated(unsafe) var sequence: UInt64 = 0

  /// - Parameter receiveBuffer: bytes that the kernel may keep for it at most; nil: as it likes.
  init(
    _ identity: HostIdentity, isStream: Bool, port: UInt16 = HairpinLab.port, receiveBuffer: Int32? = nil,
    greets: Bool = true
  ) {
    self.identity = identity
    self.isStream = isStream
    let kind = Int32(isStream ? SOCK_STREAM.rawValue : SOCK_DGRAM.rawValue)
    descriptor = socket(AF_INET, kind | Int32(SOCK_CLOEXEC.rawValue), 0)
    if var receiveBuffer { setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, 4) }
    _ = SocketName(HairpinLab.endpoint(port: port)).withPointer { Glibc.connect(descriptor, $0, $1) }
    if isStream, greets { write(RecordFramer.prefix) }
  }

  deinit { close(descriptor) }

  func end() { shutdown(descriptor, Int32(SHUT_RDWR)) }

  // MARK: Bytes

  /// Says one thing, as much of it as the kernel takes now; what it does not take goes with the next.
  func say(_ payload: [UInt8]) {
    if isStream { write(StreamOracle.record(payload)) } else { _ = send(descriptor, payload, payload.count, 0) }
  }

  func write(_ bytes: [UInt8]) {
    unsent += bytes
    let sent = send(descriptor, unsent, unsent.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
    if sent > 0 { unsent.removeFirst(sent) }
  }

  var hasUnsent: Bool {
    if !unsent.isEmpty { write([]) }
    return !unsent.isEmpty
  }

  /// Takes what has come.
  func fetch() {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      guard count > 0 else {
        if isStream, count == 0 || errno != EAGAIN { hasEnded = true }
        break
      }
      if isStream { arrived += buffer[0..<count] } else { inbox.append(Array(buffer[0..<count])) }
    }
    var offset = 0
    while arrived.count - offset >= 2 {
      let length = Int(arrived[offset]) * 256 + Int(arrived[offset + 1])
      guard length >= 2, arrived.count - offset >= length else { break }
      inbox.append(Array(arrived[offset + 2..<offset + length]))
      offset += length
    }
    arrived.removeFirst(offset)
  }

  /// What has come that is no message of the relay's own.
  func packets() -> [[UInt8]] {
    fetch()
    defer { inbox = [] }
    return inbox.filter { !($0.starts(with: [0, 0, 0, 0]) && $0.dropFirst(4).starts(with: "CHP".utf8)) }
  }

  /// Turns of the lab until the relay says something of its own.
  func hear<Message>(in lab: HairpinLab, _ read: ([UInt8]) -> Message?) -> Message? {
    var found: Message?
    lab.until([]) {
      fetch()
      if let place = inbox.firstIndex(where: { read($0) != nil }) { found = read(inbox.remove(at: place)) }
      return found != nil
    }
    return found
  }

  // MARK: Enrolment

  /// Enrols from where it is.
  @discardableResult func enrol(at relay: HostIdentityTag, in lab: HairpinLab) -> Bool {
    let nonce = HairpinNumber(high: 7, low: identity.tag.bytes.reduce(0) { $0 &* 31 &+ UInt64($1) })
    say(HairpinMessage.hello(nonce: nonce, token: .zero).encoded)
    let cookie: [UInt8]? = hear(in: lab) {
      if case .challenge(nonce, let cookie) = HairpinMessage($0) { cookie } else { nil }
    }
    guard let cookie else { return false }
    let key = identity.publicIdentity
    RelayGuest.sequence += 1
    var enrol = EnrolmentMessage.Enrol(
      nonce: nonce, cookie: cookie, token: token, sequence: RelayGuest.sequence,
      identity: .init(algorithm: key.algorithm, hostIdentity: key.hostIdentity))
    enrol.signature = [UInt8](repeating: 0, count: 64)
    enrol.signature = identity.sign(
      EnrolmentMessage.proof(ofEnrol: EnrolmentMessage.enrol(enrol).encoded, signature: 64, relay: relay.bytes))
    say(EnrolmentMessage.enrol(enrol).encoded)
    let enrolled: EnrolmentMessage.Enrolled? = hear(in: lab) {
      if case .enrolled(let enrolled) = EnrolmentMessage($0) { enrolled } else { nil }
    }
    token = enrolled?.token ?? token
    return enrolled != nil
  }

  /// Says datagrams of one size as a train.
  func say(train: [[UInt8]]) {
    var size = Int32(train[0].count)
    setsockopt(descriptor, 17, 103, &size, 4)  // UDP_SEGMENT
    say(train.flatMap { $0 })
  }

  /// Tells another gateway under which SPI it takes packets.
  func announce(_ spi: UInt32, to other: RelayGuest) -> [UInt8] {
    let packet = announcement(spi, to: other)
    say(packet)
    return packet
  }

  func announcement(_ spi: UInt32, to other: RelayGuest) -> [UInt8] {
    var builder = HIPBuilder(.i2, from: identity.tag, to: other.identity.tag)
    var info: [UInt8] = [0, 0, 0, 160, 0, 0, 0, 0]
    info.append(number: spi)
    builder.append(.espInfo, info)
    builder.appendSignature(by: identity)
    return [0, 0, 0, 0] + builder.finish()
  }
}
