import Glibc
import Host
import PacketIO

/// A gateway's directory of used sequence numbers. One process at a time holds it.
///
/// For each sending key there is a small file, named by the key's fingerprint, with the highest number that may
/// have been used. One file holds the highest number received under each key. Records are replaced as a whole and
/// are on stable storage when a write returns. Whoever deletes them must make new keys.
public final class StateDirectory: Sendable {
  /// As it was given.
  public let path: String
  private let locked: Descriptor
  /// Directories that did not exist before.
  private let created: [String]
  /// Keys whose records were made elsewhere, and how that is known.
  let copied: [Fingerprint: Copy]

  /// Opens the directory, creates it where it is missing, and locks it.
  public init(_ path: String) throws {
    let made = try PosixFile.createDirectories(path, mode: 0o700)
    do {
      locked = try StateDirectory.locked(path)
    } catch {
      PosixFile.removeEmptyDirectories(made)
      throw error
    }
    self.path = path
    created = made
    copied = try StateDirectory.copied(in: path)
  }

  /// Removes the directory again where this object made it and nothing was recorded. For failed starts.
  func removeIfUnused() {
    if !created.isEmpty, PosixFile.names(in: path) == ["origin"] { try? PosixFile.remove(originFile) }
    PosixFile.removeEmptyDirectories(created)
  }

  private static func locked(_ path: String) throws -> Descriptor {
    let directory = try open(path)
    try checkOwner(of: directory.status, path)
    try checkParents(of: path)
    guard directory.lock() else {
      throw OperatorError(
        "state directory \(path) is in use by another gateway",
        remedy: "stop that gateway first ('culvert show' lists those that run)")
    }
    try PosixFile.checkWritable(path)
    // What writers left that were cut off. Nobody else writes here.
    for name in PosixFile.names(in: path) where PosixFile.isTemporary(name) { try PosixFile.remove("\(path)/\(name)") }
    return directory
  }

  private static func open(_ path: String) throws -> Descriptor {
    do {
      return try Descriptor(open: path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    } catch {
      guard error.errno == ELOOP || error.errno == ENOTDIR, (try? FileStatus(of: path))?.isDirectory == true else {
        if error.errno == EACCES, let status = try? FileStatus(of: path) { try checkOwner(of: status, path) }
        throw error
      }
      throw OperatorError(
        "state directory \(path) is a symbolic link", remedy: "set 'state' to the directory it leads to")
    }
  }

  /// Whoever can lower or remove a record has numbers used twice.
  private static func checkOwner(of status: FileStatus, _ path: String) throws(OperatorError) {
    guard status.owner == 0 || status.owner == geteuid() else {
      throw OperatorError(
        "state directory \(path) belongs to user \(status.owner)",
        remedy: "chown it to user \(geteuid()), who runs this")
    }
    guard status.mode & 0o022 == 0 else {
      throw OperatorError("others can write to the state directory \(path)", remedy: "chmod 700 \(path)")
    }
  }

  /// Whoever can write to a directory above can put another in this one's place; but not where, as in /tmp, files can be
  /// renamed by their owners only.
  private static func checkParents(of path: String) throws(OperatorError) {
    var parent = path
    while parent != "/", parent != "." {
      parent = PosixFile.directory(of: parent)
      guard let status = try? FileStatus(of: parent), status.mode & 0o022 != 0, status.mode & S_ISVTX == 0 else {
        continue
      }
      throw OperatorError(
        "others can write to \(parent), and so replace the state directory \(path)", remedy: "chmod go-w \(parent)")
    }
  }

  /// Looks at the records of used sequence numbers, where there are any and this user may, and changes nothing.
  /// - Throws: `OperatorError`, `SystemError`: what would keep a gateway from starting with them.
  public static func check(_ path: String) throws {
    guard PosixFile.canList(path) else { return }
    let directory = try open(path)
    try checkOwner(of: directory.status, path)
    try checkParents(of: path)
    for name in PosixFile.names(in: path) where name.hasSuffix(".sent") { _ = try sentLimit(in: "\(path)/\(name)") }
  }

  // MARK: Copies

  /// How it is known that a record was made elsewhere.
  enum Copy: String {
    /// Another machine made it.
    case foreign
    /// It is a copy of one that this machine made, so there was a newer one.
    case older
  }

  private var originFile: String { "\(path)/origin" }
  /// Keys whose records were found to be copies, until somebody removes it.
  var copiedFile: String { "\(path)/copied" }

  /// Keys whose records were not made here. That is remembered, because from now on new ones are written beside them.
  private static func copied(in path: String) throws -> [Fingerprint: Copy] {
    var copied: [Fingerprint: Copy] = [:]
    for line in try lines(of: "\(path)/copied") ?? [] {
      let parts = line.split(separator: " ")
      guard parts.count == 2, let key = Fingerprint(text: parts[0]) else { continue }
      copied[key] = Copy(rawValue: String(parts[1])) ?? .foreign
    }
    let found = Origin.check("\(path)/origin")
    guard found != .same else { return copied }
    if let copy = found.copy {
      for key in try keysOnRecord(in: path) where copied[key] != .foreign { copied[key] = copy }
      try write(copied, to: "\(path)/copied")
    }
    try Origin.write(to: "\(path)/origin")
    return copied
  }

  private static func keysOnRecord(in path: String) throws -> [Fingerprint] {
    let sent = PosixFile.names(in: path).filter { $0.hasSuffix(".sent") }.compactMap {
      Fingerprint(text: $0.dropLast(5))
    }
    let received = ["received", "received.damaged"].flatMap { (try? lines(of: "\(path)/\($0)")) ?? [] }
    return sent + received.compactMap { Fingerprint(text: $0.prefix { $0 != " " }) }
  }

  /// The record of a key in here is the newest again.
  func acknowledge(_ copied: [Fingerprint: Copy]) throws(SystemError) {
    if copied.isEmpty { return try PosixFile.remove(copiedFile) }
    try StateDirectory.write(copied, to: copiedFile)
  }

  private static func write(_ copied: [Fingerprint: Copy], to file: String) throws(SystemError) {
    if copied.isEmpty { return }
    var text = "# Keys whose records were copied here, so that newer ones may exist elsewhere.\n"
    for (key, copy) in copied.sorted(by: { $0.key.description < $1.key.description }) {
      text += "\(key) \(copy.rawValue)\n"
    }
    try PosixFile.writeAtomically(Array(text.utf8), to: file)
  }

  // MARK: Sending

  /// Where the record of a sending key is kept.
  func sentRecord(_ key: Fingerprint) -> String { "\(path)/\(key).sent" }

  /// The highest sequence number that may have been used under a key; nil: it was never used here.
  func sentLimit(_ key: Fingerprint) throws -> UInt64? {
    try StateDirectory.sentLimit(in: sentRecord(key))
  }

  private static func sentLimit(in file: String) throws -> UInt64? {
    guard let lines = try lines(of: file) else { return nil }
    // Never to be guessed: a number too low uses a nonce twice.
    guard lines.count == 1, let limit = UInt64(lines[0]) else { throw damaged(file) }
    return limit
  }

  func setSentLimit(_ limit: UInt64, _ key: Fingerprint) throws(SystemError) {
    let comment = "# Sequence numbers up to this one may have been used. Neither lower nor delete it: make a new key."
    try PosixFile.writeAtomically(Array("\(comment)\n\(limit)\n".utf8), to: sentRecord(key))
  }

  /// No number of the key was used after all.
  func removeSentLimit(_ key: Fingerprint) throws(SystemError) { try PosixFile.remove(sentRecord(key)) }

  /// A record of use of this key in a directory beside this one: that of another gateway, or of this one under an
  /// earlier name.
  func foreignSentRecord(_ key: Fingerprint) -> String? {
    let parent = PosixFile.directory(of: path)
    for name in PosixFile.names(in: parent) where "\(parent)/\(name)" != path {
      let file = "\(parent)/\(name)/\(key).sent"
      guard (try? FileStatus(of: file)) != nil else { continue }
      // One that cannot be read counts as used.
      if (try? StateDirectory.sentLimit(in: file)) != 0 { return file }
    }
    return nil
  }

  // MARK: Receiving

  /// What is known of numbers received.
  struct Received {
    /// The highest accepted under each key that was ever received under here.
    var numbers: [Fingerprint: UInt64] = [:]
    /// Keys without a number were never received under. Otherwise a record was damaged, and they may have been.
    var isComplete = true
  }

  private var receivedFile: String { "\(path)/received" }
  /// What could not be read is put aside, and remembered until somebody removes it.
  var damagedReceived: String { "\(receivedFile).damaged" }

  func received() throws -> Received {
    var received = Received()
    var isDamaged = false
    for file in [damagedReceived, receivedFile] {
      for line in try StateDirectory.lines(of: file) ?? [] {
        let parts = line.split(separator: " ")
        if parts.count == 2, let key = Fingerprint(text: parts[0]), let number = UInt64(parts[1]) {
          received.numbers[key] = max(number, received.numbers[key] ?? 0)
        } else {
          received.isComplete = false
          isDamaged = file == receivedFile
        }
      }
    }
    if isDamaged { try PosixFile.rename(receivedFile, to: damagedReceived) }
    return received
  }

  func setReceived(_ numbers: [Fingerprint: UInt64]) throws(SystemError) {
    var text = "# The highest sequence number accepted under each key; older packets are replays.\n"
    for (key, number) in numbers.sorted(by: { $0.key.description < $1.key.description }) {
      text += "\(key) \(number)\n"
    }
    try PosixFile.writeAtomically(Array(text.utf8), to: receivedFile)
  }

  // MARK: Text

  /// Bytes of a file that is read.
  private static let largestFile = 16 << 20

  /// Lines without comments; nil where there is no such file.
  static func lines(of path: String) throws -> [Substring]? {
    let file: Descriptor
    do {
      file = try Descriptor(open: path, O_RDONLY | O_NOFOLLOW)
    } catch {
      if error.errno == ENOENT { return nil }
      throw error
    }
    let bytes = try file.readAll(limit: StateDirectory.largestFile)
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").filter { !$0.hasPrefix("#") }
  }

  private static func damaged(_ file: String) -> OperatorError {
    OperatorError(
      "the record of sequence numbers \(file) is damaged",
      remedy: "make new keys for this gateway and its peers, then remove the record")
  }
}
