import CLinux
import Glibc
package import PacketIO

/// The bytes of a stream: the only place in which streams are connected, read and written, by the ring or by plain calls.
///
/// What is above sees records in the clear; what is below, what goes over the wire. Where a stream is encrypted,
/// `TLSSessions` is between them here: it opens what was received before it is handed up, seals what is handed down, and
/// the kernel cannot move what such a stream brings (`isPlain`).
extension StreamTable {
  // MARK: By the ring

  /// Connects a stream that was dialled.
  mutating func submitConnect(_ place: Int, token: Token, ring: inout Ring) {
    streams[place].isConnecting = true
    names[place] = SocketName(streams[place].remote)
    let length = names[place].length
    let file = RingFile(streams[place].descriptor)
    unsafe withUnsafePointer(to: &names[place]) { unsafe ring.connect(file, $0, length: length, token: token) }
  }

  /// Has the kernel hand over what comes, in buffers of a group; where it has none, say when there is something.
  mutating func submitReceive(_ place: Int, group: UInt16?, token: Token, ring: inout Ring) {
    streams[place].isReceiving = true
    let file = RingFile(streams[place].descriptor)
    if let group {
      ring.receiveMultishot(file, group: group, token: token)
    } else {
      ring.pollReadable(file, token: token)
    }
  }

  /// Opens what `submitReceive` brought into a buffer's bytes, behind `sealedMargin`; what it was lies at their front.
  /// - Parameter result: bytes, 0 at the end, or a negated errno.
  /// - Returns: the same of the stream; EAGAIN: it was none of the stream's.
  mutating func opened(_ place: Int, _ result: Int, _ bytes: PacketBytes, now: MonotonicTime) -> Int {
    guard result > 0, streams[place].isEncrypted else { return result }
    // All of them: what a handshake, or the protocol itself, costs is bounded so too.
    streams[place].receivedBytes &+= result
    return sessions.open(place, bytes, count: result, from: streams[place].origin, now: now)
  }

  /// Bytes that have to stay free in front of what is received.
  var sealedMargin: Int {
    sessions.encrypts(dialled: true) || sessions.encrypts(dialled: false) ? TLSSessions.margin : 0
  }

  /// Sends all of a gather list, a `struct msghdr`, or as much of it as can be sealed at once.
  @unsafe mutating func submitSend(_ place: Int, _ message: UnsafePointer<msghdr>, token: Token, ring: inout Ring) {
    guard !streams[place].isEncrypted else {
      unsafe sessions.seal(place, message)
      submitSealed(place, token: token, ring: &ring)
      return
    }
    unsafe submit(place, message, token: token, ring: &ring)
  }

  /// Sends what was sealed and has yet to go.
  /// - Returns: false when there is nothing.
  @discardableResult
  mutating func submitSealed(_ place: Int, token: Token, ring: inout Ring) -> Bool {
    guard streams[place].isEncrypted, let message = unsafe sessions.sealed(place) else { return false }
    unsafe submit(place, message, token: token, ring: &ring)
    return true
  }

  @unsafe private mutating func submit(
    _ place: Int, _ message: UnsafePointer<msghdr>, token: Token, ring: inout Ring
  ) {
    streams[place].isSending = true
    unsafe ring.sendMessage(
      RingFile(streams[place].descriptor), message, flags: UInt32(MSG_NOSIGNAL | MSG_WAITALL), token: token)
  }

  /// What the completion of a send says of the stream's bytes.
  /// - Returns: bytes, or a negated errno; EAGAIN: none of the stream's.
  mutating func sent(_ place: Int, _ result: Int32) -> Int32 {
    guard result > 0, streams[place].isEncrypted else { return result }
    let bytes = sessions.sent(place, Int(result))
    return bytes > 0 ? Int32(clamping: bytes) : -EAGAIN
  }

  // MARK: Encryption

  package var tlsFigures: TLSFigures { sessions.figures }

  /// Begins the handshake of a stream that was dialled and is connected.
  /// - Parameter name: of the other end's certificate; nil: nothing is asked for.
  mutating func secure(_ place: Int, name: String?) -> Bool {
    streams[place].state = .securing
    return sessions.begin(place, name: name)
  }

  /// Whether a stream that is being secured is, from now on.
  mutating func becomesOpen(_ place: Int) -> Bool {
    guard streams[place].state == .securing, sessions.isOpen(place) else { return false }
    streams[place].state = .open
    return true
  }

  /// Why an encrypted stream brings nothing more, a positive errno; nil: it does, or is not encrypted.
  func ending(_ place: Int) -> Int32? { streams[place].isEncrypted ? sessions.ending(place) : nil }

  /// Bytes of the stream that can be sealed before something has gone.
  func sealRoom(_ place: Int) -> Int { sessions.wholeRoom(place) }

  /// Seals bytes of the stream, for which there must be room, without sending them.
  mutating func seal(_ place: Int, _ bytes: PacketBytes) { sessions.seal(place, bytes) }
  mutating func seal(_ place: Int, _ bytes: [UInt8]) { sessions.seal(place, bytes[...]) }

  /// Whether something that was sealed has yet to go.
  package func hasSealed(_ place: Int) -> Bool { streams[place].isEncrypted && sessions.hasSealed(place) }

  /// Bytes on the wire of what was sealed and has yet to go.
  package func sealedBytes(_ place: Int) -> Int { streams[place].isEncrypted ? sessions.sealedBytes(place) : 0 }

  /// Seals the farewell of an encrypted stream; it goes with what was sealed before.
  mutating func sealFarewell(_ place: Int) { if streams[place].isEncrypted { sessions.close(place) } }

  /// Says farewell on a stream that is about to be closed, if the kernel takes it at once.
  mutating func bidFarewell(_ place: Int) {
    guard streams[place].isEncrypted, !streams[place].isSending else { return }
    sessions.close(place)
    if let message = unsafe sessions.sealed(place) {
      _ = unsafe sendmsg(streams[place].descriptor, message, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
  }

  // MARK: By plain calls, which do not wait

  /// Says by the ring when there is something to read.
  package mutating func pollReadable(_ place: Int, token: Token, ring: inout Ring) {
    guard !streams[place].isReceiving else { return }
    streams[place].isReceiving = true
    // What libssl has taken out of the socket no poll of that tells.
    if streams[place].isEncrypted, sessions.hasMore(place) { return ring.noOperation(token: token) }
    ring.pollReadable(RingFile(streams[place].descriptor), token: token)
  }

  /// Says by the ring when more can be written.
  package mutating func pollWritable(_ place: Int, token: Token, ring: inout Ring) {
    guard !streams[place].isSending else { return }
    streams[place].isSending = true
    ring.pollWritable(RingFile(streams[place].descriptor), token: token)
  }

  /// Receives what is there; bytes, 0 at the end, or a negated errno. What of an encrypted stream's handshake is to be
  /// said is sent, or waits for `flush`.
  package mutating func receive(_ place: Int, into bytes: PacketBytes) -> Int {
    guard streams[place].isEncrypted else { return TCPSocket.receive(streams[place].descriptor, into: bytes) }
    let received = sessions.receive(
      place, streams[place].descriptor, into: bytes, from: streams[place].origin, now: .current())
    _ = becomesOpen(place)
    guard flush(place) || received > 0 else { return -Int(EPIPE) }
    return received
  }

  /// Receives what is on the wire, for `opened`.
  func receiveSealed(_ place: Int, into bytes: PacketBytes) -> Int {
    TCPSocket.receive(streams[place].descriptor, into: bytes)
  }

  /// Sends what the kernel takes now: bytes, 0 when it takes none, or negative when the stream is gone. Of an encrypted
  /// stream some of what was taken may have yet to go (`hasSealed`): it waits for `flush`.
  package mutating func send(_ place: Int, _ bytes: PacketBytes) -> Int {
    guard streams[place].isEncrypted else { return TCPSocket.send(streams[place].descriptor, bytes) }
    var taken = 0
    while taken < bytes.count {
      guard flush(place) else { return -1 }
      if sessions.hasSealed(place) { break }
      let count = sessions.seal(place, bytes.dropFirst(taken))
      if count == 0 { break }
      taken += count
    }
    return flush(place) && ending(place) == nil ? taken : -1
  }

  /// The same, of the bytes from `start` on.
  package mutating func send(_ place: Int, _ bytes: [UInt8], from start: Int = 0) -> Int {
    guard streams[place].isEncrypted else {
      return TCPSocket.send(streams[place].descriptor, bytes, from: start)
    }
    guard flush(place) else { return -1 }
    guard start < bytes.count, !sessions.hasSealed(place) else { return 0 }
    let count = sessions.seal(place, bytes[start...])
    return flush(place) && ending(place) == nil ? count : -1
  }

  /// Sends what was sealed and has yet to go, as much as the kernel takes now.
  /// - Returns: false when the stream is gone.
  package mutating func flush(_ place: Int) -> Bool {
    guard streams[place].isEncrypted else { return true }
    while let message = unsafe sessions.sealed(place) {
      let sent = unsafe sendmsg(streams[place].descriptor, message, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
      guard sent >= 0 else { return errno == EAGAIN || errno == EINTR }
      _ = sessions.sent(place, sent)
    }
    return true
  }

  // MARK: By the kernel alone

  /// Whether its bytes are records as they come, so that the kernel may move them to another such stream.
  package func isPlain(_ place: Int) -> Bool { streams[place].state == .open && !streams[place].isEncrypted }

  /// Moves bytes of a plain stream into a pipe: bytes, 0 at the stream's end, or a negated errno.
  package func move(_ place: Int, intoPipe pipe: Int32, _ count: Int) -> Int {
    StreamTable.splice(streams[place].descriptor, pipe, count)
  }

  /// Moves bytes from a pipe to a plain stream.
  package func move(_ place: Int, outOfPipe pipe: Int32, _ count: Int) -> Int {
    StreamTable.splice(pipe, streams[place].descriptor, count)
  }

  private static func splice(_ from: Int32, _ to: Int32, _ count: Int) -> Int {
    while true {
      let moved = culvert_splice(from, to, UInt(count))
      if moved >= 0 { return moved }
      if errno != EINTR { return -Int(errno) }
    }
  }
}
