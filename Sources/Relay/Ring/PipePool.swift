import CLinux
import Glibc
import PacketIO

/// Pipes through which the kernel moves a stream's bytes to another without copying them (splice). A few, and only while
/// bytes are in them; who gets none copies.
struct PipePool: ~Copyable {
  /// Pipes in use and spare at a time.
  private static let most = 64
  /// Bytes that one takes at most.
  private static let capacity: Int32 = 1 << 20

  struct Pipe: BitwiseCopyable {
    var input: Int32
    var output: Int32
  }

  private var spare = FixedArray<Pipe>(capacity: PipePool.most)
  private var used = 0

  deinit { for index in 0..<spare.count { PipePool.close(spare[index]) } }

  /// An empty pipe; nil when there are too many, or the system has none.
  mutating func take() -> Pipe? {
    guard used < PipePool.most else { return nil }
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
    _ = fcntl(ends.1, Int32(CULVERT_F_SETPIPE_SZ), PipePool.capacity)
    used += 1
    return Pipe(input: ends.1, output: ends.0)
  }

  /// Gives a pipe back.
  mutating func give(_ pipe: Pipe, isEmpty: Bool) {
    used -= 1
    if !isEmpty || !spare.tryAppend(pipe) { PipePool.close(pipe) }
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
