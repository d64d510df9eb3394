public import PacketIO

/// What translates this gateway's addresses of one family, as far as it shows in where relays see the gateway.
public struct TranslatorFinding: Codable, Sendable, Equatable {
  public enum Kind: String, Codable, Sendable {
    /// There is none: the gateway is seen under an address of its own.
    case none
    /// All relays see one address and port, so that others can be let in (endpoint-independent mapping, RFC 4787 §4.1).
    case endpointIndependent = "endpoint-independent"
    /// Each relay sees another port, or another address: none is good for anybody else.
    case endpointDependent = "endpoint-dependent"
    /// One relay alone does not show of which kind it is.
    case unknown
  }

  /// Of IPv4; else of IPv6.
  public var isV4: Bool
  public var kind: Kind
  /// Where relays see this gateway.
  public var seenAs: [Endpoint]

  /// "IPv4: behind an address translator, endpoint-independent, seen as 192.0.2.1:4500".
  public var text: String {
    let what =
      switch kind {
      case .none: "no address translator"
      case .endpointIndependent: "behind an address translator, endpoint-independent: others can be let in"
      case .endpointDependent: "behind an address translator, endpoint-dependent: relays alone get through"
      case .unknown: "behind an address translator; a second relay elsewhere would show of which kind"
      }
    return "\(isV4 ? "IPv4" : "IPv6"): \(what), seen as \(seenAs.map { "\($0)" }.joined(separator: " and "))"
  }

  /// What one relay has seen.
  struct Observation {
    /// The relay's address.
    let relay: IPAddress
    let seen: Endpoint
  }

  /// One for each family in which a relay has seen something.
  /// - Parameter own: where the gateway takes datagrams, as it knows itself.
  static func all(of observations: [Observation], own: [Endpoint]) -> [TranslatorFinding] {
    [true, false].compactMap { isV4 in
      let family = observations.filter { $0.seen.address.isV4 == isV4 }
      guard !family.isEmpty else { return nil }
      var seen: [Endpoint] = []
      for endpoint in family.map(\.seen) where !seen.contains(endpoint) { seen.append(endpoint) }
      let kind: Kind =
        if seen.allSatisfy({ seen in own.contains { $0.address == seen.address } }) {
          .none
        } else if seen.count > 1 {
          .endpointDependent
        } else {
          Set(family.map(\.relay)).count > 1 ? .endpointIndependent : .unknown
        }
      return TranslatorFinding(isV4: isV4, kind: kind, seenAs: seen)
    }
  }
}
