/// What the path MTU towards a peer rests on. Only what `probes` have found is confirmed by the peer.
public enum PathMTUSource: String, Sendable, BitwiseCopyable, Codable, CaseIterable {
  /// A probe of this size was answered.
  case probes
  /// What nearly all paths take, before anything is known or where probes are lost (BASE_PLPMTU of RFC 8899 §5.1.2).
  case base
  /// What this machine's own link takes.
  case link
  /// What a router has said about a packet that was sent shortly before (RFC 1191, RFC 8201).
  case icmp
  /// What the configuration causes at most, or allows.
  case configured

  /// The peer has confirmed it.
  public var isConfirmed: Bool { self == .probes }

  /// "confirmed", or "assumed" and why.
  public var text: String { isConfirmed ? "confirmed" : "assumed: \(rawValue)" }
}
