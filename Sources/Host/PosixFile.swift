package import Glibc
package import PacketIO

/// File operations that have to be exact about permissions, atomicity and stable storage.
package enum PosixFile {
  /// Writes a file as a whole or not at all: temporary file, fsync, rename, fsync of the directory.
  ///
  /// - Parameter replace: false: an existing file is refused with `EEXIST`.
  package static func writeAtomically(
    _ bytes: [UInt8], to path: String, mode: mode_t = 0o600, replace: Bool = true
  ) throws(SystemError) {
    try writeAtomically(to: path, mode: mode, replace: replace) { _ in bytes }
  }

  /// The same, of what depends on the new file.
  package static func writeAtomically(
    to path: String, mode: mode_t = 0o600, replace: Bool = true, _ bytes: (borrowing Descriptor) -> [UInt8]
  ) throws(SystemError) {
    let temporary = "\(path)\(temporaryInfix)\(getpid())"
    do throws(SystemError) {
      try writeNew(to: temporary, mode: mode, bytes)
      // Unlike rename, link never replaces.
      let moved = unsafe replace ? Glibc.rename(temporary, path) : link(temporary, path)
      guard moved == 0 else { throw SystemError(path, errno: errno) }
      if !replace { unsafe unlink(temporary) }
    } catch {
      unsafe unlink(temporary)
      throw SystemError("write \(path)", errno: error.errno, remedy: remedy(forWriting: error.errno))
    }
    try synchroniseDirectory(of: path)
  }

  private static let temporaryInfix = ".new-"

  /// Whether a file of this name is what `writeAtomically` was about to write; it is left when the process is killed.
  package static func isTemporary(_ name: String) -> Bool {
    guard let infix = name.firstRange(of: temporaryInfix) else { return false }
    let number = name[infix.upperBound...]
    return !number.isEmpty && number.allSatisfy(\.isNumber)
  }

  /// Gives a file another name, which nobody has or whose file is replaced.
  package static func rename(_ path: String, to new: String) throws(SystemError) {
    guard unsafe Glibc.rename(path, new) == 0 else {
      let reason = errno
      throw SystemError("rename \(path)", errno: reason, remedy: remedy(forWriting: reason))
    }
    try synchroniseDirectory(of: new)
  }

  private static func writeNew(
    to path: String, mode: mode_t, _ bytes: (borrowing Descriptor) -> [UInt8]
  ) throws(SystemError) {
    // What a process of this number left when it was cut off.
    unsafe unlink(path)
    let file = try Descriptor(open: path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
    try file.writeAll(bytes(file))
    try file.synchronise()
  }

  /// Why this user cannot create a file of that name, as `errno` has it; 0: he can.
  package static func obstacle(toCreating path: String) -> Int32 {
    unsafe access(directory(of: path), W_OK | X_OK) == 0 ? 0 : errno
  }

  /// Makes stable what was created, renamed or removed in the directory that holds `path`.
  package static func synchroniseDirectory(of path: String) throws(SystemError) {
    try Descriptor(open: directory(of: path), O_RDONLY | O_DIRECTORY).synchronise()
  }

  /// Creates a directory and those above it; on failure none.
  /// - Returns: those that did not exist, outermost first.
  package static func createDirectories(_ path: String, mode: mode_t = 0o755) throws(SystemError) -> [String] {
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
  package static func removeEmptyDirectories(_ paths: [String]) {
    for path in paths.reversed() { unsafe rmdir(path) }
  }

  /// - Throws: `SystemError` where this process may not write at `path`.
  package static func checkWritable(_ path: String) throws(SystemError) {
    guard unsafe access(path, W_OK) == 0 else {
      let reason = errno
      throw SystemError("write to \(path)", errno: reason, remedy: remedy(forWriting: reason))
    }
  }

  /// Whether there is a directory whose names this process may read, and which it may enter.
  package static func canList(_ path: String) -> Bool { unsafe access(path, R_OK | X_OK) == 0 }

  /// Removes a file; one that is not there is no error.
  package static func remove(_ path: String) throws(SystemError) {
    guard unsafe unlink(path) == 0 || errno == ENOENT else { throw SystemError("remove \(path)", errno: errno) }
  }

  /// Names in a directory, sorted; nothing where it cannot be read.
  package static func names(in path: String) -> [String] {
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// A variable of this process; nil: there is none.
  package static func environment(_ name: String) -> String? {
    unsafe getenv(name).map { unsafe String(cString: $0) }
  }

  /// A whole file as text, or its first `limit` bytes; nil where there is none or it cannot be read.
  package static func text(_ path: String, limit: Int = 1 << 24) -> String? {
    guard let bytes = try? Descriptor(open: path, O_RDONLY).readAll(limit: limit - 1) else { return nil }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// "/a/b" of "/a/b/c", "." of "c".
  package static func directory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// What can be done about a failed write.
  package static func remedy(forWriting errno: Int32) -> String? {
    switch errno {
    case EACCES, EPERM:
      geteuid() == 0
        ? "chown it and the directories above it to root, who may not pass over others' permissions here"
        : "run as root, or choose a place this user may write to"
    case EROFS: "choose a place that is not mounted read-only"
    case ENOSPC, EDQUOT: "free some space"
    case EEXIST, ENOTDIR: "remove what is there first, or choose another name"
    case ENOENT: "choose a place where files can be made"
    default: nil
    }
  }
}
