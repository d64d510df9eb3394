import Foundation
import Glibc
import PacketIO

extension SystemError {
  /// The kernel's reason alone: "No such file or directory".
  var reason: String { unsafe String(cString: strerror(errno)) }
}

/// What `fstat` tells of a file, as far as anybody here asks.
struct FileStatus: Equatable {
  let device: UInt64
  let inode: UInt64
  let owner: uid_t
  let mode: mode_t
  let size: Int

  var isRegular: Bool { mode & S_IFMT == S_IFREG }
  var isDirectory: Bool { mode & S_IFMT == S_IFDIR }
  var isSocket: Bool { mode & S_IFMT == S_IFSOCK }
  /// Bits that let group or others do anything.
  var foreignPermissions: mode_t { mode & 0o077 }

  fileprivate init(_ status: stat) {
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    owner = status.st_uid
    mode = status.st_mode
    size = Int(status.st_size)
  }

  /// Follows symbolic links.
  /// - Throws: `SystemError`; `ENOENT` where there is nothing.
  init(of path: String) throws(SystemError) {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw SystemError(path, errno: errno) }
    self.init(status)
  }
}

/// An open file; closed when let go.
struct Descriptor: ~Copyable {
  let raw: Int32

  init(adopting raw: Int32) { self.raw = raw }

  /// `O_CLOEXEC` is added to the flags; `mode` counts for a file that is created.
  init(open path: String, _ flags: Int32, mode: mode_t = 0o600) throws(SystemError) {
    raw = unsafe Glibc.open(path, flags | O_CLOEXEC, mode)
    if raw < 0 { throw SystemError(path, errno: errno) }
  }

  deinit { close(raw) }

  /// Hands the descriptor over to somebody who closes it.
  consuming func release() -> Int32 {
    let raw = raw
    discard self
    return raw
  }

  var status: FileStatus {
    var status = stat()
    unsafe fstat(raw, &status)
    return FileStatus(status)
  }

  /// The whole file, or its first `limit + 1` bytes. Leaves no copies behind: the caller can wipe what it got.
  func readAll(limit: Int) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: min(status.size, limit) + 1)
    var count = 0
    while count < bytes.count {
      let n = unsafe bytes.withUnsafeMutableBytes { buffer in
        unsafe Glibc.read(raw, buffer.baseAddress! + count, buffer.count - count)
      }
      if n < 0 && errno == EINTR { continue }
      if n < 0 { throw SystemError("read", errno: errno) }
      if n == 0 { break }
      count += n
    }
    bytes.removeLast(bytes.count - count)
    return bytes
  }

  func writeAll(_ bytes: [UInt8]) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      let n = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(raw, $0.baseAddress! + done, bytes.count - done) }
      if n < 0 && errno == EINTR { continue }
      if n < 0 { throw SystemError("write", errno: errno) }
      done += n
    }
  }

  /// False: somebody else holds the lock. It ends with the descriptor, so a crash leaves none behind.
  func lock() -> Bool { flock(raw, LOCK_EX | LOCK_NB) == 0 }

  /// To stable storage.
  func synchronise() throws(SystemError) {
    if fsync(raw) != 0 { throw SystemError("fsync", errno: errno) }
  }
}

/// Zeroes secret bytes where they lie. Only the array that owns its storage alone is worth wiping.
func wipe(_ bytes: inout [UInt8]) {
  unsafe bytes.withUnsafeMutableBytes { buffer in
    guard let base = buffer.baseAddress else { return }
    unsafe explicit_bzero(base, buffer.count)
  }
}

/// File operations that have to be exact about permissions, atomicity and stable storage.
enum PosixFile {
  /// Writes a file as a whole or not at all: temporary file, fsync, rename, fsync of the directory.
  ///
  /// - Parameter replace: false: an existing file is refused with `EEXIST`.
  static func writeAtomically(
    _ bytes: [UInt8], to path: String, mode: mode_t = 0o600, replace: Bool = true
  ) throws(SystemError) {
    let temporary = "\(path).new-\(getpid())"
    do throws(SystemError) {
      try writeNew(bytes, to: temporary, mode: mode)
      // Unlike rename, link never replaces.
      let moved = unsafe replace ? rename(temporary, path) : link(temporary, path)
      guard moved == 0 else { throw SystemError(path, errno: errno) }
      if !replace { unsafe unlink(temporary) }
    } catch {
      unsafe unlink(temporary)
      throw SystemError("write \(path)", errno: error.errno, remedy: remedy(forWriting: error.errno))
    }
    try synchroniseDirectory(of: path)
  }

  private static func writeNew(_ bytes: [UInt8], to path: String, mode: mode_t) throws(SystemError) {
    // What a process of this number left when it was cut off.
    unsafe unlink(path)
    let file = try Descriptor(open: path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
    try file.writeAll(bytes)
    try file.synchronise()
  }

  static func synchroniseDirectory(of path: String) throws(SystemError) {
    try Descriptor(open: directory(of: path), O_RDONLY | O_DIRECTORY).synchronise()
  }

  /// Creates a directory and those above it; on failure none.
  /// - Returns: those that did not exist, outermost first.
  static func createDirectories(_ path: String, mode: mode_t = 0o755) throws(SystemError) -> [String] {
    var reason = makeDirectory(path, mode)
    guard reason == ENOENT, directory(of: path) != path else {
      if reason == 0 { return [path] }
      if reason == EEXIST { reason = (try? FileStatus(of: path))?.isDirectory == true ? 0 : ENOTDIR }
      guard reason == 0 else { throw cannotCreate(path, reason) }
      return []
    }
    let parents = try createDirectories(directory(of: path))
    // Not by recursion: there are file systems that know no such file, whatever one creates.
    reason = makeDirectory(path, mode)
    guard reason == 0 else {
      removeEmptyDirectories(parents)
      throw cannotCreate(path, reason)
    }
    return parents + [path]
  }

  private static func makeDirectory(_ path: String, _ mode: mode_t) -> Int32 {
    unsafe mkdir(path, mode) == 0 ? 0 : errno
  }

  private static func cannotCreate(_ path: String, _ reason: Int32) -> SystemError {
    SystemError("create directory \(path)", errno: reason, remedy: remedy(forWriting: reason))
  }

  /// Removes directories, innermost first, as long as they are empty.
  static func removeEmptyDirectories(_ paths: [String]) {
    for path in paths.reversed() { unsafe rmdir(path) }
  }

  /// - Throws: `SystemError` where this process may not write at `path`.
  static func checkWritable(_ path: String) throws(SystemError) {
    guard unsafe access(path, W_OK) == 0 else {
      let reason = errno
      throw SystemError("write to \(path)", errno: reason, remedy: remedy(forWriting: reason))
    }
  }

  static func remove(_ path: String) throws(SystemError) {
    guard unsafe unlink(path) == 0 || errno == ENOENT else { throw SystemError("remove \(path)", errno: errno) }
  }

  /// Names in a directory, sorted; nothing where it cannot be read.
  static func names(in path: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
  }

  /// "/a/b" of "/a/b/c", "." of "c".
  static func directory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// What can be done about a failed write.
  static func remedy(forWriting errno: Int32) -> String? {
    switch errno {
    case EACCES, EPERM: "run as root, or choose a place this user may write to"
    case EROFS: "choose a place that is not mounted read-only"
    case ENOSPC, EDQUOT: "free some space"
    case EEXIST, ENOTDIR: "remove what is there first, or choose another name"
    case ENOENT: "choose a place where files can be made"
    default: nil
    }
  }
}
