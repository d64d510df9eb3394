public import Identity
public import Transports

/// The policy that a control system has given a relay by updates, and the number of the last one.
public struct PolicyBook: Sendable {
  /// Why an update is not taken.
  public enum Refusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// It is no update, or has another spelling than its own.
    case malformed
    /// No control system that is known has signed it.
    case forged
    case otherRelay(HostIdentityTag)
    /// Its number is not above the last one's.
    case outdated(known: UInt64)
    /// It changes another policy than the one that is in force.
    case gap(known: UInt64)

    public var description: String {
      switch self {
      case .malformed: "it is no policy update"
      case .forged: "its signature is not that of a control system that is known here"
      case .otherRelay(let relay): "it is for the relay \(relay)"
      case .outdated(let known): "its number is not above \(known), which is known"
      case .gap(let known):
        "it changes another policy than that of number \(known), which is in force: send a whole one"
      }
    }
  }

  /// Whose policy it is.
  public let relay: HostIdentityTag
  private let keys: [HairpinPublicKey]
  /// As of the last update; without one nothing passes.
  public private(set) var policy = RelayPolicy()
  /// Of the last update; 0: there was none.
  public private(set) var number: UInt64 = 0
  /// The highest that was ever in force, where that is known though its update is not.
  public var highest: UInt64 = 0

  /// - Parameter keys: of control systems.
  public init(for relay: HostIdentityTag, keys: [HairpinPublicKey]) {
    self.relay = relay
    self.keys = keys
  }

  /// Takes the next update: removals first.
  /// - Returns: whether it was a whole one, so that those before it are of no interest any more.
  /// - Throws: `Refusal`; then all is as it was.
  public mutating func take(_ bytes: [UInt8]) throws(Refusal) -> Bool {
    guard let signed = SignedPolicyUpdate(bytes) else { throw .malformed }
    guard keys.contains(where: { signed.isSigned(by: $0) }) else { throw .forged }
    let update = signed.update
    guard update.relay == relay else { throw .otherRelay(update.relay) }
    guard update.number > max(number, highest) else { throw .outdated(known: max(number, highest)) }
    switch update.extent {
    case .whole: policy = RelayPolicy()
    case .changes(let since):
      guard since == number else { throw .gap(known: number) }
    }
    policy.deny(update.removed)
    for rule in update.allowed { policy.allow(rule.pair.smaller, rule.pair.greater, rule.terms) }
    number = update.number
    return update.extent == .whole
  }
}
