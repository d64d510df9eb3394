package import PacketIO

/// Bytes that a stream did not take at once. Whoever appends keeps to a limit of his own.
package struct ByteQueue {
  private var bytes: [UInt8] = []
  /// How many of them have gone.
  private var head = 0

  package init() {}

  package var isEmpty: Bool { bytes.isEmpty }
  package var count: Int { bytes.count - head }
  /// Bytes of memory, those that have gone included.
  var keptBytes: Int { bytes.count }

  package mutating func append(_ more: PacketBytes) { append(more.array()) }
  package mutating func append(_ more: [UInt8]) {
    // A queue that is never quite empty shall not keep what has gone.
    if head > bytes.count / 2 {
      bytes.removeFirst(head)
      head = 0
    }
    bytes += more
  }

  package mutating func removeAll() {
    bytes = []
    head = 0
  }

  /// Gives what is taken now to whom it is for: bytes, or negative when he is gone.
  /// - Parameter send: takes the bytes from a place on, and says how many.
  mutating func send(_ send: (_ bytes: [UInt8], _ start: Int) -> Int) -> Int {
    let sent = send(bytes, head)
    guard sent > 0 else { return sent }
    head += sent
    if head == bytes.count { removeAll() }
    return sent
  }

  /// Sends what the stream takes now: bytes, or negative when the stream is gone.
  package mutating func send(to place: Int, _ streams: inout StreamTable) -> Int {
    send { streams.send(place, $0, from: $1) }
  }
}
