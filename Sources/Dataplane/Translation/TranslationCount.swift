/// What was done for one peer whose prefixes clash with ours.
public struct TranslationCount: Sendable, Equatable, Codable, BitwiseCopyable {
  /// Packets in which an address was rewritten, by direction.
  public var sent: UInt64 = 0
  public var received: UInt64 = 0
  /// DNS messages, both ways: rewritten because they named translated hosts; left alone because they are signed;
  /// left alone because there was no room or no way to rewrite them.
  public var dnsRewritten: UInt64 = 0
  public var dnsSigned: UInt64 = 0
  public var dnsUnfit: UInt64 = 0

  public init() {}

  @inline(__always)
  mutating func count(_ outcome: DNSOutcome) {
    switch outcome {
    case .untouched: break
    case .rewritten: dnsRewritten &+= 1
    case .signed: dnsSigned &+= 1
    case .unfit: dnsUnfit &+= 1
    }
  }
}
