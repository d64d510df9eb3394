/// How one peer and this gateway know each other's LANs. Each gateway translates its own prefixes, and routes the
/// other's intermediate ones; see `PrefixTranslation`.
public struct TranslationConfiguration: Sendable, Equatable {
  /// Who sees to it that there are spaces where prefixes clash.
  public enum Mode: String, Sendable, CaseIterable {
    /// The two gateways, by negotiation; the spaces given here are demanded and in force from the start.
    case automatic
    /// Whoever configures both gateways alike; there are the spaces given here and no others.
    case fixed
    /// This gateway alone, for a peer that cannot translate: it translates the peer's prefixes too.
    case oneSided = "one-sided"
  }

  public var mode: Mode
  /// This gateway's prefixes and the intermediate ones by which the peer knows them.
  public var knownAs: [PrefixPair]
  /// The peer's prefixes and the intermediate ones by which they are known here, in place of the peer's `prefixes`.
  public var theirs: [PrefixPair]
  /// UDP port of name servers, whose messages are rewritten where they name translated hosts; 0: they are not.
  public var dnsPort: UInt16

  public init(
    mode: Mode = .automatic, knownAs: [PrefixPair] = [], theirs: [PrefixPair] = [], dnsPort: UInt16 = 53
  ) {
    self.mode = mode
    self.knownAs = knownAs
    self.theirs = theirs
    self.dnsPort = dnsPort
  }
}
