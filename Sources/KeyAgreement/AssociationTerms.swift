import Dataplane
import Keying

/// What is no matter of agreement about associations: what this side does with its own.
public struct AssociationTerms: Sendable, Equatable {
  /// As `SecurityAssociationConfiguration.copiesDSCP`.
  public var copiesDSCP: Bool
  /// As `SecurityAssociationConfiguration.replayWindow`.
  public var replayWindow: Int

  public init(copiesDSCP: Bool = false, replayWindow: Int = 2048) {
    self.copiesDSCP = copiesDSCP
    self.replayWindow = replayWindow
  }

  func inbound(_ key: TrafficKey) -> SecurityAssociationConfiguration {
    var association = SecurityAssociationConfiguration(key)
    association.replayWindow = replayWindow
    return association
  }

  /// - Parameter isFirst: of both sides, this one is to make new keys when those are worn; the other one a little later.
  func outbound(_ key: TrafficKey, _ lifetime: KeyLifetime, isFirst: Bool) -> SecurityAssociationConfiguration {
    var association = SecurityAssociationConfiguration(key)
    association.copiesDSCP = copiesDSCP
    func soft(_ limit: UInt64, _ part: (UInt64, UInt64)) -> UInt64 {
      let worn = limit / part.1 * part.0
      return isFirst ? worn / 5 * 4 : worn
    }
    association.lifetime = AssociationLifetime(
      softPackets: soft(lifetime.packets, (1, 2)), packets: lifetime.packets, softBytes: soft(lifetime.bytes, (3, 4)),
      bytes: lifetime.bytes)
    return association
  }
}

extension SecurityAssociationConfiguration {
  fileprivate init(_ key: TrafficKey) {
    self.init(
      spi: key.spi, cipher: Cipher(key.suite.cipher), key: key.key, implicitIV: key.suite.implicitIV,
      isEphemeral: true)
  }
}

extension Cipher {
  fileprivate init(_ cipher: ESPSuite.Cipher) {
    switch cipher {
    case .aes128GCM: self = .aes128GCM
    case .aes256GCM: self = .aes256GCM
    case .chaCha20Poly1305: self = .chacha20Poly1305
    }
  }
}
