import CLinux
import Glibc
package import PacketIO

/// The bytes of a stream: the only place in which streams are connected, read and written, by the ring or by plain calls.
///
/// What is above sees records in the clear; what is below, what goes over the wire. Both are the same bytes so far. What
/// encrypts a stream comes between them here: it opens what was received before it is handed up, seals what is handed
/// down, and says of its streams that the kernel cannot move what they bring (`isPlain`).
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

  /// Sends all of a gather list, a `struct msghdr`.
  @unsafe mutating func submitSend(_ place: Int, _ message: UnsafePointer<msghdr>, token: Token, ring: inout Ring) {
    streams[place].isSending = true
    unsafe ring.sendMessage(
      RingFile(streams[place].descriptor), message, flags: UInt32(MSG_NOSIGNAL | MSG_WAITALL), token: token)
  }

  // MARK: By plain calls, which do not wait

  /// Says by the ring when there is something to read.
  package mutating func pollReadable(_ place: Int, token: Token, ring: inout Ring) {
    guard !streams[place].isReceiving else { return }
    streams[place].isReceiving = true
    ring.pollReadable(RingFile(streams[place].descriptor), token: token)
  }

  /// Says by the ring when more can be written.
  package mutating func pollWritable(_ place: Int, token: Token, ring: inout Ring) {
    guard !streams[place].isSending else { return }
    streams[place].isSending = true
    ring.pollWritable(RingFile(streams[place].descriptor), token: token)
  }

  /// Receives what is there; bytes, 0 at the end, or a negated errno.
  package mutating func receive(_ place: Int, into bytes: PacketBytes) -> Int {
    TCPSocket.receive(streams[place].descriptor, into: bytes)
  }

  /// Sends what the kernel takes now: bytes, 0 when it takes none, or negative when the stream is gone.
  package mutating func send(_ place: Int, _ bytes: PacketBytes) -> Int {
    TCPSocket.send(streams[place].descriptor, bytes)
  }

  /// The same, of the bytes from `start` on.
  package mutating func send(_ place: Int, _ bytes: [UInt8], from start: Int = 0) -> Int {
    TCPSocket.send(streams[place].descriptor, bytes, from: start)
  }

  // MARK: By the kernel alone

  /// Whether its bytes are records as they come, so that the kernel may move them to another such stream.
  package func isPlain(_ place: Int) -> Bool { streams[place].state == .open }

  /// Moves bytes of a plain stream into a pipe: bytes, 0 at the stream's end, or a negated errno.
  package func move(_ place: Int, intoPipe pipe: Int32, _ count: Int) -> Int {
    StreamTable.splice(streams[place].descriptor, pipe, count)
  }

  /// Moves bytes from a pipe to a plain stream.
  package func move(_ place: Int, outOfPipe pipe: Int32, _ count: Int) -> Int {
    StreamTable.splice(pipe, streams[place].descriptor, count)
  }

  private static func splice(_ from: Int32, _ to: Int32, _ count: Int) -> Int {
    let moved = culvert_splice(from, to, UInt(count))
    return moved >= 0 ? moved : -Int(errno)
  }
}
