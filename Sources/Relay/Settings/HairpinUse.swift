public import Transports

/// What a proxy remembers of a ticket after its hairpin ended.
public struct HairpinUse: Hashable, Sendable {
  public var number: HairpinNumber
  /// The ticket's own end, seconds since 1970: until then it is remembered.
  public var notAfter: UInt64
  /// Whether it is used up. Not so after a time window closed, a side was silent or the proxy stopped: then it goes on with
  /// what is left.
  public var isSpent: Bool
  /// Bytes that count against its limit.
  public var bytes: UInt64
  /// Its first use, seconds since 1970.
  public var started: Int64

  public init(number: HairpinNumber, notAfter: UInt64, isSpent: Bool, bytes: UInt64, started: Int64) {
    self.number = number
    self.notAfter = notAfter
    self.isSpent = isSpent
    self.bytes = bytes
    self.started = started
  }

  /// One line of a file of used tickets.
  public var line: String { "\(number) \(notAfter) \(isSpent ? "spent" : "open") \(bytes) \(started)" }

  /// Reads what `line` writes.
  public init?(line: String) {
    let words = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
    guard words.count == 5, let number = HairpinNumber(words[0]), let notAfter = UInt64(digits: words[1]),
      ["spent", "open"].contains(words[2]), let bytes = UInt64(digits: words[3]), let started = Int64(digits: words[4])
    else { return nil }
    self.init(number: number, notAfter: notAfter, isSpent: words[2] == "spent", bytes: bytes, started: started)
  }
}
