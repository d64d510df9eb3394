import Glibc
import PacketIO

@testable import Transports

/// One end of a TLS stream without a socket: what is on the wire is handed over by hand.
final class TLSEnd {
  static let origin = IPAddress(v4: 0x7F00_0001)

  private var sessions: TLSSessions
  private let pool = BufferPool(count: 1)
  private let buffer: BufferID
  let isServer: Bool
  /// What the other end has said, as a stream.
  private(set) var received: [UInt8] = []
  /// What `open` returned that was no bytes.
  private(set) var statuses: [Int] = []
  /// Bytes of the stream for which what has gone stood.
  private(set) var sent = 0

  init(
    server certificate: TLSCertificate?, handshakes: Int = 1000
  ) throws {
    isServer = true
    sessions = TLSSessions(
      streams: 1, server: try TLSContext(showing: certificate), client: nil, handshakes: handshakes)
    buffer = pool.take()!
    sessions.accept(0)
  }

  init(server context: TLSContext) {
    isServer = true
    sessions = TLSSessions(streams: 1, server: context, client: nil, handshakes: 1000)
    buffer = pool.take()!
    sessions.accept(0)
  }

  init(client name: String? = nil, authorities: [UInt8]? = nil) {
    isServer = false
    sessions = TLSSessions(streams: 1, server: nil, client: try! TLSContext(trusting: authorities), handshakes: 1)
    buffer = pool.take()!
    _ = sessions.begin(0, name: name)
  }

  var isOpen: Bool { sessions.isOpen(0) }
  var figures: TLSFigures { sessions.figures }
  var ending: Int32? { sessions.ending(0) }

  /// What comes off the wire.
  func take(_ bytes: [UInt8], now: MonotonicTime = MonotonicTime(nanoseconds: 1)) {
    let room = pool.bytes(buffer)
    room.copy(bytes, to: TLSSessions.margin)
    let count = sessions.open(0, room, count: bytes.count, from: TLSEnd.origin, now: now)
    if count > 0 { received += room.slice(0, count).array() } else { statuses.append(count) }
  }

  /// What a socket has.
  func receive(_ descriptor: Int32) -> Int {
    sessions.receive(
      0, descriptor, into: pool.bytes(buffer), from: TLSEnd.origin, now: MonotonicTime(nanoseconds: 1))
  }

  /// Up to so many bytes for the wire.
  func give(_ most: Int) -> [UInt8] {
    guard let message = sessions.sealed(0), let vector = message.pointee.msg_iov else { return [] }
    let count = min(most, vector.pointee.iov_len)
    let bytes = [UInt8](UnsafeRawBufferPointer(start: vector.pointee.iov_base, count: count))
    sent += sessions.sent(0, count)
    return bytes
  }

  /// Seals what a gather list of such pieces names.
  /// - Returns: whether anything was.
  func seal(_ pieces: [[UInt8]]) -> Bool {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: pieces.reduce(1) { $0 + $1.count }, alignment: 1)
    defer { memory.deallocate() }
    var vectors: [iovec] = []
    var end = 0
    for piece in pieces {
      memory.advanced(by: end).copyMemory(from: piece, byteCount: piece.count)
      vectors.append(iovec(iov_base: memory + end, iov_len: piece.count))
      end += piece.count
    }
    vectors.withUnsafeMutableBufferPointer { list in
      var message = msghdr()
      message.msg_iov = list.baseAddress
      message.msg_iovlen = list.count
      sessions.seal(0, &message)
    }
    return sessions.hasSealed(0)
  }

  func bidFarewell() { sessions.close(0) }
}
