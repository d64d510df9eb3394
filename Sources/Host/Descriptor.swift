package import Glibc
package import PacketIO

extension SystemError {
  /// The kernel's reason alone: "No such file or directory".
  package var reason: String { unsafe String(cString: strerror(errno)) }
}

/// What `fstat` tells of a file, as far as anybody here asks.
package struct FileStatus: Equatable, Sendable {
  /// The file system's device number.
  package let device: UInt64
  /// The file's number in its file system.
  package let inode: UInt64
  /// The user it belongs to.
  package let owner: uid_t
  /// Type and permissions.
  package let mode: mode_t
  /// Bytes; 0 for what has no size of its own, such as files of /proc and pipes.
  package let size: Int

  /// Whether it is a plain file.
  package var isRegular: Bool { mode & S_IFMT == S_IFREG }
  /// Whether it is a directory.
  package var isDirectory: Bool { mode & S_IFMT == S_IFDIR }
  /// Whether it is a pipe, with a name or without.
  package var isPipe: Bool { mode & S_IFMT == S_IFIFO }
  /// Whether it is a socket of the Unix family.
  package var isSocket: Bool { mode & S_IFMT == S_IFSOCK }
  /// Bits that let group or others do anything.
  package var foreignPermissions: mode_t { mode & 0o077 }

  fileprivate init(_ status: stat) {
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    owner = status.st_uid
    mode = status.st_mode
    size = Int(status.st_size)
  }

  /// Follows symbolic links.
  /// - Throws: `SystemError`; `ENOENT` where there is nothing.
  package init(of path: String) throws(SystemError) {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw SystemError(path, errno: errno) }
    self.init(status)
  }
}

/// An open file; closed when let go.
package struct Descriptor: ~Copyable {
  /// The kernel's number of it.
  package let raw: Int32

  /// Takes over a descriptor that is open.
  package init(adopting raw: Int32) { self.raw = raw }

  /// `O_CLOEXEC` is added to the flags; `mode` counts for a file that is created.
  package init(open path: String, _ flags: Int32, mode: mode_t = 0o600) throws(SystemError) {
    raw = unsafe Glibc.open(path, flags | O_CLOEXEC, mode)
    if raw < 0 { throw SystemError(path, errno: errno) }
  }

  deinit { close(raw) }

  /// Hands the descriptor over to somebody who closes it.
  package consuming func release() -> Int32 {
    let raw = raw
    discard self
    return raw
  }

  /// What the kernel says of the file.
  package var status: FileStatus {
    var status = stat()
    unsafe fstat(raw, &status)
    return FileStatus(status)
  }

  /// Everything up to the end, or the first `limit + 1` bytes: a file of any kind, whatever size it claims to have.
  ///
  /// Leaves no copies behind: the caller can wipe what it got. Where the descriptor does not block, waits for what
  /// another program has still to write.
  /// - Throws: `ETIMEDOUT` when nothing came for ten seconds.
  package func readAll(limit: Int) throws(SystemError) -> [UInt8] {
    // One more than expected, so that the end of a plain file is seen without growing.
    var bytes = [UInt8](repeating: 0, count: min(max(status.size, Descriptor.block), limit) + 1)
    var count = 0
    while true {
      if count == bytes.count {
        if count > limit { break }
        grow(&bytes, to: min(2 * count, limit + 1))
      }
      let n = unsafe bytes.withUnsafeMutableBytes { buffer in
        unsafe Glibc.read(raw, buffer.baseAddress! + count, buffer.count - count)
      }
      if n < 0 && errno == EINTR { continue }
      if n < 0 && errno == EAGAIN {
        try waitUntilReadable()
        continue
      }
      if n < 0 { throw SystemError("read", errno: errno) }
      if n == 0 { break }
      count += n
    }
    bytes.removeLast(bytes.count - count)
    return bytes
  }

  /// Bytes of the first read where a file does not say how long it is.
  private static let block = 1 << 16
  /// Milliseconds that another program may be silent.
  private static let patience: Int32 = 10_000

  private func grow(_ bytes: inout [UInt8], to size: Int) {
    var larger = [UInt8](repeating: 0, count: size)
    larger.replaceSubrange(..<bytes.count, with: bytes)
    wipe(&bytes)
    bytes = larger
  }

  /// Waits for a writer, where this is a pipe, or for what it writes.
  /// - Throws: `ETIMEDOUT` after ten seconds.
  package func waitUntilReadable() throws(SystemError) {
    var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    let ready = unsafe poll(&wait, 1, Descriptor.patience)
    if ready == 0 { throw SystemError("read", errno: ETIMEDOUT) }
    if ready < 0 && errno != EINTR { throw SystemError("read", errno: errno) }
  }

  /// Writes all of it, in as many calls as that takes.
  package func writeAll(_ bytes: [UInt8]) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      let n = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(raw, $0.baseAddress! + done, bytes.count - done) }
      if n < 0 && errno == EINTR { continue }
      if n < 0 { throw SystemError("write", errno: errno) }
      done += n
    }
  }

  /// False: somebody else holds the lock. It ends with the descriptor, so a crash leaves none behind.
  package func lock() -> Bool { flock(raw, LOCK_EX | LOCK_NB) == 0 }

  /// Waits for the lock, for `body`'s length.
  package func whileLocked<Value, Failure: Error>(
    _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    while flock(raw, LOCK_EX) != 0 && errno == EINTR {}
    defer { flock(raw, LOCK_UN) }
    return try body()
  }

  /// Makes the file `size` bytes long, where it is shorter, without taking room for them.
  package func extend(to size: Int) throws(SystemError) {
    if status.size < size, ftruncate(raw, size) != 0 { throw SystemError("ftruncate", errno: errno) }
  }

  /// Takes room for bytes of the file, which are zero if they were not there.
  package func reserve(at offset: Int, length: Int) throws(SystemError) {
    let failure = posix_fallocate(raw, offset, length)
    if failure != 0 { throw SystemError("fallocate", errno: failure) }
  }

  /// To stable storage.
  package func synchronise() throws(SystemError) {
    if fsync(raw) != 0 { throw SystemError("fsync", errno: errno) }
  }
}

/// Zeroes secret bytes where they lie. Only the array that owns its storage alone is worth wiping.
package func wipe(_ bytes: inout [UInt8]) {
  unsafe bytes.withUnsafeMutableBytes { buffer in
    guard let base = buffer.baseAddress else { return }
    unsafe explicit_bzero(base, buffer.count)
  }
}
