import Glibc
import Host
import PacketIO
import Relay

/// The file of signed policy updates: the last whole one and what has changed since, each behind its length in four bytes.
/// Read, and looked at as if it came anew, at the start; so nobody who can write to it can allow anything. Beside it the
/// highest number that was in force is kept, so that a copy of before is not taken for the policy of now.
struct PolicyStore {
  /// Bytes of a file that is read: a whole policy, and as much again in changes.
  private static let largestFile = 2 * PolicyUpdate.mostBytes

  private let path: String
  private(set) var book: PolicyBook
  /// Bytes of it that are whole updates; and whether something follows that is none, as when a machine stopped while the
  /// last one was written.
  private var bytes = 0
  private var isTorn = false
  /// It is not known what the file holds: only a whole policy can go on from there.
  private var isUnknown = false

  /// - Parameter book: without a policy yet.
  /// - Throws: `OperatorError` for what is no such file.
  init(_ path: String, _ book: PolicyBook) throws(OperatorError) {
    self.path = path
    self.book = book
    // Before the updates: one that comes meanwhile is in them first.
    let highest = try PolicyStore.highest(beside: path)
    guard let kept = try PolicyStore.read(path), !kept.isEmpty else {
      self.book.highest = highest
      return
    }
    var rest = kept[...]
    while !rest.isEmpty {
      guard let update = PolicyStore.next(&rest) else { break }
      do throws(PolicyBook.Refusal) {
        _ = try self.book.take(update)
      } catch {
        throw OperatorError(
          "\(path) holds what is no update of this relay's policy: \(error)",
          remedy: "remove the file, and have the control system send the whole policy")
      }
    }
    guard self.book.number >= highest else {
      throw OperatorError(
        "\(path) is an older copy: it ends with number \(self.book.number), and \(highest) was in force",
        remedy: "bring back the newest copy, or remove the file, and have the control system send the whole policy")
    }
    bytes = kept.count - rest.count
    isTorn = !rest.isEmpty
  }

  /// Takes an update, and keeps it before it is in force.
  mutating func take(_ update: [UInt8]) throws {
    var next = book
    let isWhole = try next.take(update)
    guard isWhole || !isUnknown && bytes + update.count + 4 <= PolicyStore.largestFile else {
      throw PolicyBook.Refusal.gap(known: book.number)
    }
    var record: [UInt8] = []
    record.append(number: UInt32(clamping: update.count))
    record += update
    let wasTorn = isTorn
    // Until all of it is on the disk: what a write has left that failed is replaced by the next.
    isTorn = true
    if isWhole {
      isUnknown = true
      try write(record, to: path)
      bytes = 0
    } else if wasTorn {
      try write(Array((try PolicyStore.read(path) ?? []).prefix(bytes)) + record, to: path)
    } else {
      try append(record)
    }
    // Not before: an end in between leaves a number that is too low, and no policy that seems to be too old.
    try write(Array("\(next.number)\n".utf8), to: PolicyStore.numberFile(path))
    (isTorn, isUnknown) = (false, false)
    bytes += record.count
    book = next
  }

  private func write(_ bytes: [UInt8], to path: String) throws(OperatorError) {
    do {
      try PosixFile.writeAtomically(bytes, to: path, mode: 0o640)
    } catch {
      throw OperatorError("\(path) cannot be written: \(error.reason)", remedy: PolicyStore.remedy)
    }
  }

  private func append(_ record: [UInt8]) throws(OperatorError) {
    do throws(SystemError) {
      let file = try Descriptor(open: path, O_WRONLY | O_APPEND | O_NOFOLLOW)
      try file.writeAll(record)
      try file.synchronise()
    } catch {
      throw OperatorError("\(path) cannot be written: \(error.reason)", remedy: PolicyStore.remedy)
    }
  }

  private static let remedy = "make its directory writable for this user, and free some space"

  static func numberFile(_ path: String) -> String { "\(path).number" }

  /// Zero: nothing was in force yet.
  private static func highest(beside path: String) throws(OperatorError) -> UInt64 {
    let path = numberFile(path)
    guard let bytes = try read(path) else { return 0 }
    let text = String(decoding: bytes, as: UTF8.self)
    guard text.hasSuffix("\n"), let number = UInt64(digits: text.dropLast()) else {
      throw OperatorError(
        "\(path) holds no number", remedy: "write that of the policy in force, as the control system has it")
    }
    return number
  }

  /// Nil: there is none.
  private static func read(_ path: String) throws(OperatorError) -> [UInt8]? {
    do throws(SystemError) {
      let file = try Descriptor(open: path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
      return try file.readAll(limit: largestFile)
    } catch {
      if error.errno == ENOENT { return nil }
      throw OperatorError(
        "\(path) cannot be read: \(error.reason)",
        remedy: "make it readable, or remove it and have the control system send the whole policy")
    }
  }

  private static func next(_ rest: inout ArraySlice<UInt8>) -> [UInt8]? {
    var reader = ByteReader(rest)
    guard let count = reader.number(UInt32.self), let update = reader.take(Int(clamping: count)) else { return nil }
    rest = reader.takeRest()[...]
    return update
  }
}
