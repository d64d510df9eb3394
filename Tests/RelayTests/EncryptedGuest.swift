import Glibc
import PacketIO

@testable import Transports

/// Somebody who dials a port for encrypted streams, says what a test wants, and reads when it wants.
final class EncryptedGuest {
  private var table: StreamTable
  private let place: Int
  private let pool = BufferPool(count: 1)
  private let buffer: BufferID
  private var unsaid = ByteQueue()
  private(set) var heard: [UInt8] = []
  private(set) var hasEnded = false

  convenience init(to port: UInt16 = HairpinLab.tlsPort) throws {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    _ = SocketName(HairpinLab.endpoint(port: port)).withPointer { Glibc.connect(descriptor, $0, $1) }
    try self.init(at: descriptor)
  }

  /// - Parameter descriptor: connected; from now on its own.
  init(at descriptor: Int32) throws {
    table = StreamTable(
      capacity: 1, limits: .init(unauthenticated: 1, perOrigin: 1, evictsWithinOrigin: false), dials: true,
      encryption: StreamEncryption(server: nil, client: try TLSContext(trusting: nil), handshakes: 1))
    buffer = pool.take()!
    place = table.dialled(
      descriptor, to: HairpinLab.endpoint(), destination: 0, deadline: MonotonicTime(nanoseconds: 1 << 60))!
    _ = table.secure(place, name: nil)
    goOn()
  }

  deinit { table.release(place) }

  var isOpen: Bool { table[place].state == .open }

  func say(_ bytes: [UInt8]) {
    unsaid.append(bytes)
    goOn()
  }

  /// Goes on with the handshake, and with what it has to say.
  func goOn() {
    if !isOpen { read(1 << 16) }
    if isOpen, !unsaid.isEmpty { _ = unsaid.send(to: place, &table) }
    _ = table.flush(place)
  }

  var hasUnsaid: Bool {
    goOn()
    return !unsaid.isEmpty || table.hasSealed(place)
  }

  /// Takes what has come.
  func fetch() { while read(1 << 16) {} }

  /// Reads once, so many bytes at most.
  @discardableResult func read(_ most: Int) -> Bool {
    let count = table.receive(place, into: pool.bytes(buffer).slice(0, most))
    if count > 0 { heard += pool.bytes(buffer).slice(0, count).array() }
    if count == 0 || count < 0 && count != -Int(EAGAIN) { hasEnded = true }
    return count > 0
  }
}
