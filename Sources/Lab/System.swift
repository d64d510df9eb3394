import CLinux
import Glibc

/// The small system calls of the lab, in terms that cannot go wrong.
enum System {
  /// What an errno means, in words.
  static func words(_ code: Int32) -> String { unsafe String(cString: strerror(code)) }

  /// The whole of a text file; nil when it cannot be read.
  static func readFile(_ path: String) -> String? {
    let file = unsafe culvert_open(path, O_RDONLY)
    if file < 0 { return nil }
    defer { close(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
      let n = unsafe Glibc.read(file, &chunk, chunk.count)
      if n <= 0 { return n < 0 ? nil : String(decoding: bytes, as: UTF8.self) }
      bytes.append(contentsOf: chunk[..<n])
    }
  }

  /// Writes to a file that exists, such as a kernel parameter. Returns an errno, 0 when it was taken.
  static func writeFile(_ path: String, _ text: String) -> Int32 {
    let file = unsafe culvert_open(path, O_WRONLY)
    if file < 0 { return errno }
    defer { close(file) }
    return unsafe Glibc.write(file, text, text.utf8.count) < 0 ? errno : 0
  }

  /// Writes all of `text`, as far as the reader's end lets it.
  static func write(_ descriptor: Int32, _ text: String) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let n = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if n < 0, errno == EINTR { continue }
      if n <= 0 { return }
      rest = rest.dropFirst(n)
    }
  }

  /// A descriptor, or a negative errno.
  static func openForReading(_ path: String) -> Int32 {
    let file = unsafe culvert_open(path, O_RDONLY)
    return file < 0 ? -errno : file
  }

  /// - Parameter mode: R_OK, W_OK or X_OK.
  static func permits(_ path: String, _ mode: Int32) -> Bool { unsafe access(path, mode) == 0 }

  /// Makes a directory that only its owner can enter, with a name nobody else has; returns its path.
  static func makeTemporaryDirectory(_ prefix: String) throws -> String {
    var template = Array("\(prefix)XXXXXX".utf8CString)
    guard let path = unsafe mkdtemp(&template) else {
      throw LabError.system("make a directory \(prefix)…", remedy: "free some space")
    }
    return unsafe String(cString: path)
  }

  /// Whether it is a directory, not a link to one, and belongs to the user we are.
  static func isOwnDirectory(_ path: String) -> Bool {
    var status = stat()
    return unsafe lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR && status.st_uid == geteuid()
  }

  /// Deletes a file, or a directory with all that is in it. Symbolic links are not followed.
  static func delete(_ path: String) {
    if unsafe unlink(path) == 0 || errno == ENOENT { return }
    for name in names(in: path) where name != "." && name != ".." { delete("\(path)/\(name)") }
    unsafe rmdir(path)
  }

  /// Creates or replaces a file that only its owner can read.
  static func createFile(_ path: String, _ text: String) throws {
    let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    if file < 0 { throw LabError.system("write \(path)") }
    write(file, text)
    close(file)
  }

  /// Reads once into `buffer`: how many bytes, or a negative errno.
  static func read(_ descriptor: Int32, into buffer: LabBuffer) -> Int {
    let room = unsafe buffer.slice(0, buffer.count)
    let n = unsafe Glibc.read(descriptor, room.baseAddress, room.count)
    return n < 0 ? -Int(errno) : n
  }

  /// Writes the first `count` bytes in one call: how many went, or a negative errno.
  static func write(_ descriptor: Int32, _ buffer: LabBuffer, count: Int) -> Int {
    let n = unsafe Glibc.write(descriptor, buffer.slice(0, count).baseAddress, count)
    return n < 0 ? -Int(errno) : n
  }

  /// Makes a descriptor's reads and writes wait.
  static func setBlocking(_ descriptor: Int32) {
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
  }

  /// Makes a directory unless it is there. Returns an errno, 0 when it is there now.
  static func makeDirectory(_ path: String) -> Int32 {
    unsafe mkdir(path, 0o755) == 0 || errno == EEXIST ? 0 : errno
  }

  /// Where a symbolic link points.
  static func linkTarget(_ path: String) -> String? {
    var target = [UInt8](repeating: 0, count: 4096)
    let n = unsafe target.withUnsafeMutableBytes { room in
      unsafe readlink(path, room.bindMemory(to: CChar.self).baseAddress!, room.count)
    }
    return n > 0 ? String(decoding: target[..<n], as: UTF8.self) : nil
  }

  /// The names in a directory; empty when it cannot be read.
  static func names(in path: String) -> [String] {
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { unsafe Array($0.prefix { $0 != 0 }) }
      names.append(String(decoding: name, as: UTF8.self))
    }
    return names
  }

  /// A variable of the environment.
  static func variable(_ name: String) -> String? { unsafe getenv(name).map { unsafe String(cString: $0) } }

  /// Both ends of a pipe that no child inherits: to read from, and to write to.
  static func pipe() throws -> (reading: Int32, writing: Int32) {
    var ends: [Int32] = [0, 0]
    guard unsafe culvert_pipe_cloexec(&ends) == 0 else { throw LabError.system("pipe") }
    return (ends[0], ends[1])
  }

  /// Seconds that a process has computed, over all its threads; nil when there is no such process.
  static func cpuSeconds(_ pid: pid_t) -> Double? {
    var clock = clockid_t()
    var time = timespec()
    guard unsafe clock_getcpuclockid(pid, &clock) == 0, unsafe clock_gettime(clock, &time) == 0 else { return nil }
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }

  /// The status word of a child that has ended; nil while it runs.
  static func reap(_ pid: pid_t) -> Int32? {
    var word: Int32 = 0
    return unsafe waitpid(pid, &word, WNOHANG) == pid ? word : nil
  }
}

/// Seconds of the monotonic clock, from some point in the past.
public func monotonicSeconds() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Seconds of processor time that the calling thread has taken.
public func threadSeconds() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Blocks the calling thread.
public func pause(seconds: Double) { pause(until: monotonicSeconds() + seconds) }

/// Blocks the calling thread until the monotonic clock shows `moment`, in seconds.
public func pause(until moment: Double) {
  let whole = moment.rounded(.down)
  var time = timespec(tv_sec: Int(whole), tv_nsec: Int((moment - whole) * 1e9))
  while unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
}
