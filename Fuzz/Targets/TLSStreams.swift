import Glibc
import PacketIO

@testable import Transports

/// An encrypted stream that somebody accepted: whatever comes by it, nothing gets out that was not sealed by the other end
/// of its handshake, what is answered fits its memory, and a stream that has ended stays so.
///
/// One byte for how far a true handshake goes before: none of it, its first message, all of it. Then for each piece one byte
/// of its length and its bytes; behind a whole handshake, these are sealed, and one byte on the wire may be altered: its
/// place is the piece's first two bytes, 0 for none.
let tlsStreams = FuzzTarget(name: "TLSStreams") { input in
  var input = FuzzInput(input)
  var pair = Pair()
  let progress = input.byte() % 3
  if progress == 1 { pair.bring(pair.gone()) }
  if progress == 2 { pair.shake() }
  require(pair.isOpen == (progress == 2), "a handshake is over after \(progress)")
  var said: [UInt8] = []
  var isAltered = false
  while !input.isEmpty {
    let piece = input.bytes(Int(input.byte()) + 1)
    guard !piece.isEmpty else { break }
    if progress < 2 {
      pair.bring(piece)
    } else {
      pair.client.seal(0, piece[...])
      said += piece
      var wire = pair.gone()
      let place = piece.count > 1 ? Int(piece[0]) << 8 | Int(piece[1]) : 0
      if place > 0, !wire.isEmpty {
        wire[place % wire.count] ^= 1 << UInt8(place & 7)
        isAltered = true
      }
      pair.bring(wire)
    }
    require(said.starts(with: pair.received), "something came out that was not put in")
  }
  require(isAltered || progress < 2 || pair.received == said, "not all came out that was put in")
  require(progress == 2 || !pair.isOpen, "a handshake was finished by noise")
  let (count, hasEnded) = (pair.received.count, pair.server.ending(0) != nil)
  pair.bring([0x17, 3, 3, 0, 1, 0])
  require(!hasEnded || pair.received.count == count && pair.server.ending(0) != nil, "a stream that had ended goes on")
}

/// A request of a stranger, as a web server takes it: however it is cut, it has one answer.
///
/// For each piece one byte of its length and its bytes.
let webRequests = FuzzTarget(name: "WebRequests") { input in
  var input = FuzzInput(input)
  var request = WebRequest()
  var all: [UInt8] = []
  var answer: [UInt8]?
  while !input.isEmpty, answer == nil {
    let piece = input.bytes(Int(input.byte()) + 1)
    all += piece
    answer = request.take(lent(piece), date: "")
  }
  if let answer { require(answer.starts(with: "HTTP/1.1 4".utf8), "\(answer)") }
  var whole = WebRequest()
  // A head may be refused for its first byte when only that has come, and is whole and refused when all has.
  let other = whole.take(lent(all), date: "")
  require((answer == nil) == (other == nil), "an answer depends on how the request is cut")
  require(answer == other, "\(answer ?? []) and not \(other ?? [])")
}

nonisolated(unsafe) private let pool = BufferPool(count: 1)
private let buffer = pool.take()!

private func lent(_ bytes: [UInt8]) -> PacketBytes {
  pool.bytes(buffer).copy(bytes, to: 0)
  return pool.bytes(buffer).slice(0, bytes.count)
}

private struct Pair: ~Copyable {
  var server: TLSSessions
  var client: TLSSessions
  private(set) var received: [UInt8] = []

  init() {
    server = TLSSessions(streams: 1, server: contexts.server, client: nil, handshakes: 1)
    client = TLSSessions(streams: 1, server: nil, client: contexts.client, handshakes: 1)
    server.accept(0)
    require(client.begin(0, name: nil), "no session")
  }

  var isOpen: Bool { server.isOpen(0) }

  /// The server gets bytes of the wire.
  mutating func bring(_ bytes: [UInt8]) {
    guard !bytes.isEmpty else { return }
    Pair.take(bytes, &server, &received)
    // It is answered at once.
    _ = Pair.give(&server)
  }

  /// What the client has for the wire.
  mutating func gone() -> [UInt8] { Pair.give(&client) }

  mutating func shake() {
    var none: [UInt8] = []
    for _ in 0..<4 {
      let forth = Pair.give(&client)
      if !forth.isEmpty { Pair.take(forth, &server, &received) }
      let back = Pair.give(&server)
      if !back.isEmpty { Pair.take(back, &client, &none) }
    }
  }

  private static func take(_ bytes: [UInt8], _ sessions: inout TLSSessions, _ received: inout [UInt8]) {
    let room = pool.bytes(buffer)
    room.copy(bytes, to: TLSSessions.margin)
    let origin = IPAddress(v4: 1)
    let count = sessions.open(0, room, count: bytes.count, from: origin, now: MonotonicTime(nanoseconds: 1))
    if count > 0 { received += room.slice(0, count).array() }
  }

  private static func give(_ sessions: inout TLSSessions) -> [UInt8] {
    guard let message = sessions.sealed(0) else { return [] }
    let count = message.pointee.msg_iov.pointee.iov_len
    require(count <= TLSSessions.outputBytes, "\(count) bytes are to go")
    let bytes = [UInt8](UnsafeRawBufferPointer(start: message.pointee.msg_iov.pointee.iov_base, count: count))
    _ = sessions.sent(0, count)
    return bytes
  }
}

/// Contexts for all inputs.
nonisolated(unsafe) private let contexts: (server: TLSContext, client: TLSContext) = {
  do {
    return (try TLSContext(showing: nil), try TLSContext(trusting: nil))
  } catch {
    fatalError("\(error)")
  }
}()
