import CLinux
import Glibc
import PacketIO
import Transports

/// Pipes through which the kernel moves a stream's bytes to another without copying them (splice). A few, and only while
/// bytes are in them; who gets none copies.
struct HairpinPipes: ~Copyable {
  /// Pipes in use and spare at a time.
  private static let most = 64
  /// Bytes that one takes at most.
  private static let capacity: Int32 = 1 << 20

  struct Pipe: BitwiseCopyable {
    var input: Int32
    var output: Int32
  }

  private var spare = FixedArray<Pipe>(capacity: HairpinPipes.most)
  private var used = 0

  deinit { for index in 0..<spare.count { HairpinPipes.close(spare[index]) } }

  /// An empty pipe; nil when there are too many, or the system has none.
  mutating func take() -> Pipe? {
    guard used < HairpinPipes.most else { return nil }
    if let pipe = spare.popLast() {
      used += 1
      return pipe
    }
    var ends: (Int32, Int32) = (-1, -1)
    let status = unsafe withUnsafeMutablePointer(to: &ends) {
      unsafe $0.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe culvert_pipe_cloexec($0) }
    }
    guard status == 0 else { return nil }
    // Without this it is smaller and slower, not wrong.
    _ = fcntl(ends.1, Int32(CULVERT_F_SETPIPE_SZ), HairpinPipes.capacity)
    used += 1
    return Pipe(input: ends.1, output: ends.0)
  }

  /// Gives a pipe back.
  mutating func give(_ pipe: Pipe, isEmpty: Bool) {
    used -= 1
    if !isEmpty || !spare.append(pipe) { HairpinPipes.close(pipe) }
  }

  /// Moves what can be moved at once.
  /// - Returns: bytes, 0 at a stream's end, or a negated errno.
  static func move(_ from: Int32, _ to: Int32, _ count: Int) -> Int {
    let moved = culvert_splice(from, to, UInt(count))
    return moved >= 0 ? moved : -Int(errno)
  }

  /// Splice has no MSG_NOSIGNAL: the calling thread is told of a stream that has ended by an error, and by no signal.
  static func ignoreBrokenPipes() {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe sigaddset(&signals, SIGPIPE)
    unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
  }

  private static func close(_ pipe: Pipe) {
    Glibc.close(pipe.input)
    Glibc.close(pipe.output)
  }
}

/// Records that a gateway announced (`HairpinMessage.run`), on their way from its stream to its partner's without being
/// looked at.
struct AnnouncedRun: BitwiseCopyable {
  /// Of all its records, lengths included; 0: there is none.
  var bytes = 0
  var packets = 0
  /// Bytes that have yet to be taken from the stream.
  var left = 0
  /// Bytes in the pipe.
  var inPipe = 0
  var pipe: HairpinPipes.Pipe?
  /// The partner's stream for which it is; on another one it would begin inside a record.
  var stream: UInt32 = 0

  init() {}

  init(bytes: Int, packets: Int, stream: UInt32) {
    self.bytes = bytes
    self.packets = packets
    self.stream = stream
    left = bytes
  }

  var isOpen: Bool { bytes > 0 }
  /// Whether some of it has gone to the partner, and not yet all.
  var isPartial: Bool { bytes > 0 && left < bytes && left + inPipe > 0 }

  /// Packets in the first `count` bytes, and their bytes without lengths, taken to be of equal size; exact for all. Both
  /// grow with `count`, because each is one rounded share: whoever announces chooses `bytes` and `packets`.
  func amount(_ count: Int) -> (packets: Int, octets: Int) {
    guard bytes > 0 else { return (0, 0) }
    let octets = max(bytes - packets * RecordFramer.lengthBytes, 0)
    return (packets * count / bytes, octets * count / bytes)
  }
}
