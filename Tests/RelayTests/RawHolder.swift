import Glibc
import PacketIO
import TestSupport
import TransportSupport

@testable import Relay
@testable import Transports

/// A ticket's holder over TCP who writes what he likes, once his port is proved.
final class RawHolder {
  private var session: HairpinSession
  private var random = SeededNumbers(seed: 11)
  private var stream: Int32 = -1
  private var destination: Endpoint?
  private var arrived: [UInt8] = []
  private var unsent: [UInt8] = []
  private let receiveBuffer: Int32?

  /// - Parameter receiveBuffer: bytes that the kernel may keep for him at most; nil: as it likes.
  init(_ file: HairpinTicketFile, receiveBuffer: Int32? = nil) {
    session = HairpinSession(file, encapsulation: .tcp, now: .current())
    self.receiveBuffer = receiveBuffer
  }

  deinit { if stream >= 0 { close(stream) } }

  /// Turns of the lab until the port is open; false when it does not open.
  func open(in lab: HairpinLab) -> Bool {
    let end = MonotonicTime.current().adding(seconds: 3)
    while !session.isOpen, MonotonicTime.current() < end {
      while let step = session.poll(now: .current(), wall: 1, using: &random) { perform(step) }
      lab.turn()
      while let message = nextRecord() {
        let isFromPort = destination == session.port
        if let step = session.receive(
          Array(message.dropFirst(4)), isFromPort: isFromPort, now: .current(), wall: 1, using: &random)
        {
          perform(step)
        }
      }
    }
    return session.isOpen
  }

  private func perform(_ step: HairpinSession.Step) {
    switch step {
    case .sendToProxy(let bytes): say(bytes, to: session.file.proxy)
    case .sendToPort(let bytes): if let port = session.port { say(bytes, to: port) }
    case .opened, .lost: break
    }
  }

  private func say(_ message: [UInt8], to endpoint: Endpoint) {
    if destination != endpoint { connect(to: endpoint) }
    write(StreamOracle.record([0, 0, 0, 0] + message))
  }

  private func connect(to endpoint: Endpoint) {
    if stream >= 0 { close(stream) }
    stream = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    if var receiveBuffer { setsockopt(stream, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, 4) }
    var one: Int32 = 1
    setsockopt(stream, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
    _ = SocketName(endpoint).withPointer { Glibc.connect(stream, $0, $1) }
    destination = endpoint
    arrived = []
    write(RecordFramer.prefix)
  }

  /// Writes what the kernel takes now; bytes that it took.
  @discardableResult
  func write(_ bytes: [UInt8]) -> Int { max(send(stream, bytes, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)), 0) }

  /// Writes as much as the kernel takes now; the rest goes with the next call.
  func pour(_ bytes: [UInt8]) {
    unsent += bytes
    unsent.removeFirst(write(unsent))
  }

  /// What has arrived since the last call.
  func read() -> [UInt8] {
    fetch()
    defer { arrived = [] }
    return arrived
  }

  private func fetch() {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = recv(stream, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      guard count > 0 else { return }
      arrived += buffer[0..<count]
    }
  }

  private func nextRecord() -> [UInt8]? {
    fetch()
    guard arrived.count >= 2 else { return nil }
    let length = Int(arrived[0]) * 256 + Int(arrived[1])
    guard length >= 2, arrived.count >= length else { return nil }
    defer { arrived.removeFirst(length) }
    return Array(arrived[2..<length])
  }
}
