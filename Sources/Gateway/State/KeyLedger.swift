import Glibc
import Host
import PacketIO
import Synchronization

/// What this machine knows of the numbers of each key since it was started, whatever becomes of state directories.
///
/// A file in /run that all gateways of the machine share: a row for each key and direction, with the highest number that
/// may have been used, or was accepted. It is memory that outlives its process, so it is exact also after a crash and
/// while the disk is full. It notices a state directory that was removed, or replaced by an older copy, and keeps two
/// gateways from one key. It ends with the machine's run, and sees nothing of other machines.
///
/// Rows are never removed: 32 bytes for each key that was used since the machine was started.
public final class KeyLedger: Sendable {
  enum Direction: UInt64 { case sending, receiving }

  private struct Key: Hashable {
    let high: UInt64
    let low: UInt64
    let direction: UInt64

    init(_ key: Fingerprint, _ direction: Direction) {
      let digits = key.description
      high = UInt64(digits.prefix(16), radix: 16) ?? 0
      low = UInt64(digits.dropFirst(16), radix: 16) ?? 0
      self.direction = direction.rawValue
    }

    init(high: UInt64, low: UInt64, direction: UInt64) {
      self.high = high
      self.low = low
      self.direction = direction
    }
  }

  /// Rows by key, as far as they were looked at.
  private struct Index {
    var rows: [Key: Int] = [:]
    /// The first row, the head, is none.
    var next = 1
  }

  /// Words of a row: the key's halves, the number, and which direction it is of.
  private static let rowWords = 4
  private static let rowBytes = rowWords * MemoryLayout<UInt64>.stride
  /// Rows at most; the file takes room for those in use.
  private static let mostRows = 1 << 20
  /// What the file begins with; the number of its rows follows.
  private static let magic: UInt64 = 0x6375_6C76_6B65_7901

  private let file: Descriptor
  private let words: SharedWords
  private let index = Mutex(Index())

  /// Where the machine's ledger is.
  public static let usualPath = "\(GatewayPlan.controlDirectory)/keys"

  /// - Throws: `OperatorError`, `SystemError`: the file cannot be made, or others may write to it.
  public init(_ path: String = KeyLedger.usualPath) throws {
    _ = try PosixFile.createDirectories(PosixFile.directory(of: path))
    file = try Descriptor(open: path, O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600)
    let status = file.status
    guard status.isRegular, status.owner == 0 || status.owner == geteuid(), status.mode & 0o022 == 0 else {
      throw OperatorError("others can write to \(path)", remedy: "remove it while no gateway runs")
    }
    try file.reserve(at: 0, length: KeyLedger.rowBytes)
    try file.extend(to: KeyLedger.mostRows * KeyLedger.rowBytes)
    words = try SharedWords(mapping: file.raw, count: KeyLedger.mostRows * KeyLedger.rowWords)
    let isKnown = file.whileLocked {
      if words[0] == 0 { words[0] = KeyLedger.magic }
      return words[0] == KeyLedger.magic
    }
    guard isKnown else {
      throw OperatorError("\(path) is of another version", remedy: "remove it while no gateway runs")
    }
  }

  /// The row of a key, which is this gateway's until it gives it back or ends; nil: there is no room for another.
  /// - Throws: `OperatorError`: another gateway of this machine uses the key.
  func claim(_ key: Fingerprint, _ direction: Direction, keyName: String) throws -> Row? {
    guard let row = try find(Key(key, direction)) else { return nil }
    guard file.lock(at: row * KeyLedger.rowBytes, length: KeyLedger.rowBytes) else {
      throw OperatorError(
        "the key in \(keyName) is in use by another gateway on this machine",
        remedy: "stop that gateway, or make a new key for this one, here and at the peer")
    }
    return Row(words: words, index: row)
  }

  /// Others may use the key from now on.
  func release(_ row: Row) { file.unlock(at: row.index * KeyLedger.rowBytes, length: KeyLedger.rowBytes) }

  private func find(_ key: Key) throws -> Int? {
    try index.withLock { index in
      if let row = index.rows[key] { return row }
      return try file.whileLocked {
        let count = Int(truncatingIfNeeded: min(words[1], UInt64(KeyLedger.mostRows - 1)))
        while index.next <= count {
          let word = index.next * KeyLedger.rowWords
          let key = Key(high: words[word], low: words[word + 1], direction: words[word + 3])
          index.rows[key] = index.next
          index.next += 1
        }
        if let row = index.rows[key] { return row }
        guard index.next < KeyLedger.mostRows else { return nil }
        let row = index.next
        try file.reserve(at: row * KeyLedger.rowBytes, length: KeyLedger.rowBytes)
        let word = row * KeyLedger.rowWords
        (words[word], words[word + 1], words[word + 2], words[word + 3]) = (key.high, key.low, 0, key.direction)
        words[1] = UInt64(row)
        index.rows[key] = row
        index.next += 1
        return row
      }
    }
  }

  /// What is known of a key.
  struct Row: Sendable {
    fileprivate let words: SharedWords
    fileprivate let index: Int
    private var word: Int { index * KeyLedger.rowWords + 2 }

    /// 0: nothing.
    var number: UInt64 { words[word] }

    /// Where workers note numbers as they go.
    var mirror: SharedWords.Word { SharedWords.Word(words, word) }

    func set(_ number: UInt64) { words[word] = number }
  }
}
