import CLibSSL
import Glibc
import PacketIO

/// TLS of a table's streams: what turns the bytes on the wire into the bytes of a stream and back, by their places.
///
/// 1. `begin` makes a dialled stream's session, and the first bytes of an accepted one make its; 2. `open` takes what has
/// come, goes on with the handshake or gives the stream's bytes; 3. `seal` puts bytes of the stream behind what is `sealed`,
/// as much as there is room for; 4. `sent` takes out what has gone, and says for how many bytes of the stream it stood;
/// 5. `close` puts a farewell there, and `end` forgets the stream.
///
/// What has come is in the caller's buffer, and opened there; libssl keeps the beginning of one record. What is to go is
/// in memory of the stream's own, `outputBytes` from its first handshake on.
@safe struct TLSSessions: ~Copyable {
  /// Bytes of a record's content at most (RFC 8446 §5.1), and those that it has besides: header, type and tag.
  static let recordBytes = 1 << 14
  private static let recordOverhead = 5 + 1 + 16
  /// What a handshake begins with (RFC 8446 §5.1).
  private static let handshakeRecord: UInt8 = 22
  /// Bytes of what is to go: four whole records, and a message of the protocol itself.
  static let outputBytes = 4 * (recordBytes + recordOverhead) + 256
  /// Bytes that are received at most before somebody else has his turn.
  private static let mostReceived = 8 * recordBytes
  /// Bytes in front of a read that are free for what libssl has kept of the read before: less than one record.
  static let margin = 17 << 10

  private enum State: UInt8, BitwiseCopyable { case none, accepting, shaking, open, ended }

  @safe private struct Row: BitwiseCopyable {
    var session: UnsafeMutablePointer<culvert_tls>?
    var output: UnsafeMutablePointer<UInt8>?
    /// What of the output has yet to go.
    var begin = 0
    var end = 0
    /// Bytes of the stream for which it stands.
    var plain = 0
    var state = State.none
    /// More has come than was taken by the last `receive`, or the end has.
    var hasMore = false
    /// Why it has ended, a positive errno; 0: as it should.
    var error: Int32 = 0
    /// A gather list of what is to go, at an address that stays.
    var vector = unsafe iovec()
    var header = unsafe msghdr()
  }

  private var rows: FixedArray<Row>
  /// Where pieces of the stream are put together for one record.
  private var record: FixedArray<UInt8>
  private let server: TLSContext?
  private let client: TLSContext?
  private var limit = HandshakeLimit(perSecond: 1)
  private(set) var figures = TLSFigures()

  /// - Parameters:
  ///   - streams: places.
  ///   - server: for streams that are accepted; nil: they are not encrypted.
  ///   - client: for those that are dialled.
  ///   - handshakes: of strangers in a second.
  init(streams: Int, server: TLSContext?, client: TLSContext?, handshakes: Int) {
    self.server = server
    self.client = client
    let isUsed = server != nil || client != nil
    rows = FixedArray(repeating: Row(), count: isUsed ? streams : 0)
    record = FixedArray(zeroes: isUsed ? TLSSessions.recordBytes : 0)
    limit = HandshakeLimit(perSecond: handshakes)
  }

  deinit { for place in 0..<rows.count { TLSSessions.free(rows[place]) } }

  /// Whether streams are encrypted that come so.
  func encrypts(dialled: Bool) -> Bool { (dialled ? client : server) != nil }

  // MARK: Beginning

  /// A stream was accepted: its session waits for its first bytes, so that silence costs nothing.
  mutating func accept(_ place: Int) { rows[place].state = .accepting }

  /// A stream was dialled and is connected; what is to go first is `sealed`.
  /// - Parameter name: what is asked for, and what the certificate has to be for; nil: nothing.
  /// - Returns: false for want of memory, or where the name is none.
  mutating func begin(_ place: Int, name: String?) -> Bool {
    guard makeSession(place, client, name: name) else { return false }
    return shake(place) == -Int(EAGAIN)
  }

  private mutating func makeSession(_ place: Int, _ context: TLSContext?, name: String?) -> Bool {
    guard let context, let session = unsafe context.session(name: name) else { return false }
    unsafe rows[place].session = unsafe session
    unsafe rows[place].output = .allocate(capacity: TLSSessions.outputBytes)
    rows[place].state = .shaking
    return true
  }

  /// Whether the handshake is over.
  func isOpen(_ place: Int) -> Bool { rows[place].state == .open }

  /// Why nothing more comes by it, a positive errno; nil: it goes on.
  func ending(_ place: Int) -> Int32? {
    guard rows[place].state == .ended else { return nil }
    return rows[place].error > 0 ? rows[place].error : ECONNRESET
  }

  // MARK: What comes

  /// Opens `count` bytes that lie in `bytes` behind the margin; what they are goes to its front.
  /// - Returns: bytes, 0 at the end, or a negated errno; EAGAIN: they were none of the stream's.
  mutating func open(_ place: Int, _ bytes: PacketBytes, count: Int, from origin: IPAddress, now: MonotonicTime) -> Int
  {
    if let status = makeAccepted(place, first: bytes[TLSSessions.margin], origin, now) { return status }
    guard let session = unsafe rows[place].session else { return -Int(EPROTO) }
    unsafe session.pointee.descriptor = -1
    let input = bytes.slice(TLSSessions.margin, count)
    unsafe session.pointee.input = UnsafePointer(input.pointer.assumingMemoryBound(to: UInt8.self))
    unsafe session.pointee.input_count = input.count
    return take(place, into: bytes)
  }

  /// Receives what is there, without waiting, and opens it.
  /// - Returns: bytes, 0 at the end, or a negated errno. Fewer than fit: nothing more is there.
  mutating func receive(
    _ place: Int, _ descriptor: Int32, into bytes: PacketBytes, from origin: IPAddress, now: MonotonicTime
  ) -> Int {
    if rows[place].state == .accepting {
      var first: UInt8 = 0
      let count = unsafe culvert_tls_first(descriptor, &first)
      guard count > 0 else { return count < 0 ? -Int(errno) : 0 }
      if let status = makeAccepted(place, first: first, origin, now) { return status }
    }
    guard let session = unsafe rows[place].session else { return -Int(EPROTO) }
    unsafe session.pointee.descriptor = descriptor
    return take(place, into: bytes)
  }

  /// Whether the next `receive` has something, although nothing is in the socket.
  func hasMore(_ place: Int) -> Bool { rows[place].hasMore }

  /// Makes the session of a stream that was accepted. What does not begin as a handshake does is no handshake, and is
  /// refused before it costs anything.
  /// - Returns: a negated errno where there is none.
  private mutating func makeAccepted(_ place: Int, first: UInt8, _ origin: IPAddress, _ now: MonotonicTime) -> Int? {
    guard rows[place].state == .accepting else { return nil }
    guard first != TLSSessions.handshakeRecord || limit.admit(origin, now: now) else {
      figures.tooMany &+= 1
      return -Int(EBUSY)
    }
    return makeSession(place, server, name: nil) ? nil : -Int(ENOMEM)
  }

  /// Goes on with the handshake, then opens what is there.
  private mutating func take(_ place: Int, into bytes: PacketBytes) -> Int {
    if rows[place].state == .shaking, case let status = shake(place), status < 0 { return status }
    guard let session = unsafe rows[place].session, rows[place].state == .open else {
      return rows[place].state == .ended ? 0 : -Int(EPROTO)
    }
    var opened = 0
    lendOutput(place)
    // libssl gives one record at a time.
    while opened < bytes.count {
      var count = 0
      let rest = bytes.dropFirst(opened)
      let result = unsafe culvert_tls_read(session, rest.pointer, rest.count, &count)
      opened += count
      if result == CULVERT_TLS_DONE { continue }
      if result != CULVERT_TLS_WAIT { end(place, result) }
      break
    }
    takeOutput(place)
    rows[place].hasMore = opened == bytes.count || rows[place].state == .ended
    if opened > 0 { return opened }
    guard let error = ending(place) else { return -Int(EAGAIN) }
    return rows[place].error > 0 ? -Int(error) : 0
  }

  /// - Returns: 0 when the handshake is over, or a negated errno.
  private mutating func shake(_ place: Int) -> Int {
    guard let session = unsafe rows[place].session else { return -Int(EPROTO) }
    lendOutput(place)
    let result = unsafe culvert_tls_handshake(session)
    takeOutput(place)
    if result == CULVERT_TLS_WAIT { return -Int(EAGAIN) }
    if result == CULVERT_TLS_DONE {
      rows[place].state = .open
      figures.handshakes &+= 1
      return 0
    }
    end(place, result)
    return -Int(rows[place].error)
  }

  private mutating func end(_ place: Int, _ result: culvert_tls_result) {
    rows[place].state = .ended
    if result == CULVERT_TLS_END { return }
    let ended = unsafe rows[place].session?.pointee.ended ?? 0
    if ended != 0 {
      rows[place].error = max(ended, 0)
      return
    }
    if result == CULVERT_TLS_CERTIFICATE {
      figures.certificateRefused &+= 1
      rows[place].error = EKEYREJECTED
    } else {
      figures.failed &+= 1
      rows[place].error = EPROTO
    }
  }

  // MARK: What goes

  /// Whether something has yet to go.
  func hasSealed(_ place: Int) -> Bool { sealedBytes(place) > 0 }
  /// How much, as it is on the wire.
  func sealedBytes(_ place: Int) -> Int { rows[place].end - rows[place].begin }

  /// What has yet to go, as a `struct msghdr`; nil: nothing.
  @unsafe mutating func sealed(_ place: Int) -> UnsafePointer<msghdr>? {
    guard hasSealed(place), let output = unsafe rows[place].output else { return nil }
    let row = unsafe rows.pointer + place
    unsafe row.pointee.vector = unsafe iovec(
      iov_base: output + row.pointee.begin, iov_len: row.pointee.end - row.pointee.begin)
    unsafe row.pointee.header.msg_iov = unsafe row.pointer(to: \.vector)
    unsafe row.pointee.header.msg_iovlen = 1
    return unsafe UnsafePointer(row.pointer(to: \.header))
  }

  /// Seals what a gather list names, as much as there is room for.
  @unsafe mutating func seal(_ place: Int, _ message: UnsafePointer<msghdr>) {
    var filled = 0
    for index in unsafe 0..<message.pointee.msg_iovlen {
      let piece = unsafe message.pointee.msg_iov[index]
      var offset = 0
      while unsafe offset < piece.iov_len {
        guard room(place) > filled else { return seal(place, filled) }
        let count = unsafe min(piece.iov_len - offset, min(TLSSessions.recordBytes, room(place)) - filled)
        if let base = unsafe piece.iov_base {
          unsafe (record.pointer + filled).update(
            from: (base + offset).assumingMemoryBound(to: UInt8.self), count: count)
        }
        offset += count
        filled += count
        if filled == TLSSessions.recordBytes {
          seal(place, filled)
          filled = 0
        }
      }
    }
    seal(place, filled)
  }

  /// Seals bytes of the stream, as much as there is room for.
  /// - Returns: how many.
  @discardableResult mutating func seal(_ place: Int, _ bytes: PacketBytes) -> Int {
    var offset = 0
    while offset < bytes.count, room(place) > 0 {
      let count = min(bytes.count - offset, TLSSessions.recordBytes, room(place))
      let piece = bytes.slice(offset, count)
      unsafe record.pointer.update(from: piece.pointer.assumingMemoryBound(to: UInt8.self), count: count)
      seal(place, count)
      offset += count
    }
    return offset
  }

  /// Seals bytes of the stream, as far as there is room.
  /// - Returns: how many.
  @discardableResult mutating func seal(_ place: Int, _ bytes: ArraySlice<UInt8>) -> Int {
    var rest = bytes
    while !rest.isEmpty, room(place) > 0 {
      let count = min(rest.count, TLSSessions.recordBytes, room(place))
      for (index, byte) in rest.prefix(count).enumerated() { record[index] = byte }
      seal(place, count)
      rest = rest.dropFirst(count)
    }
    return bytes.count - rest.count
  }

  /// Bytes of the stream that fit, whole records or one that is the last.
  func wholeRoom(_ place: Int) -> Int { max(room(place) - 3 * TLSSessions.recordOverhead, 0) }

  /// Bytes of the stream that one more record may have.
  private func room(_ place: Int) -> Int {
    guard isOpen(place) else { return 0 }
    return max(TLSSessions.outputBytes - rows[place].end - TLSSessions.recordOverhead - 256, 0)
  }

  /// Seals the first bytes of `record`, for which there is room.
  private mutating func seal(_ place: Int, _ count: Int) {
    guard count > 0, let session = unsafe rows[place].session else { return }
    lendOutput(place)
    let result = unsafe culvert_tls_write(session, record.pointer, count)
    takeOutput(place)
    if result == CULVERT_TLS_DONE { rows[place].plain += count } else { end(place, result) }
  }

  /// So many bytes of what was sealed have gone.
  /// - Returns: bytes of the stream for which they stood; not before all has gone.
  mutating func sent(_ place: Int, _ count: Int) -> Int {
    rows[place].begin += count
    guard !hasSealed(place) else { return 0 }
    let plain = rows[place].plain
    (rows[place].begin, rows[place].end, rows[place].plain) = (0, 0, 0)
    return plain
  }

  /// Puts what libssl writes behind what has yet to go.
  private mutating func lendOutput(_ place: Int) {
    guard let session = unsafe rows[place].session, let output = unsafe rows[place].output else { return }
    unsafe session.pointee.output = unsafe output
    unsafe session.pointee.output_count = rows[place].end
    unsafe session.pointee.output_capacity = TLSSessions.outputBytes
    unsafe session.pointee.budget = TLSSessions.mostReceived
  }

  private mutating func takeOutput(_ place: Int) {
    guard let session = unsafe rows[place].session else { return }
    unsafe rows[place].end = session.pointee.output_count
  }

  // MARK: End

  /// Puts a farewell behind what has yet to go.
  mutating func close(_ place: Int) {
    guard let session = unsafe rows[place].session, rows[place].state == .open else { return }
    lendOutput(place)
    unsafe culvert_tls_close(session)
    takeOutput(place)
  }

  /// The stream's place is given to another.
  mutating func end(_ place: Int) {
    TLSSessions.free(rows[place])
    rows[place] = Row()
  }

  private static func free(_ row: Row) {
    if let session = unsafe row.session { unsafe culvert_tls_free(session) }
    unsafe row.output?.deallocate()
  }
}
