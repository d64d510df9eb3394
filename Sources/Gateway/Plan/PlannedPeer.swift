public import Dataplane
import PacketIO
import Transports

/// A peer as it is planned: what the dataplane is told of it, and what only the gateway has to know.
public struct PlannedPeer: Sendable, Equatable {
  /// Manual keys without sequence numbers; see `SequenceKeeper`.
  public var configuration: PeerConfiguration
  /// With whom its keys are agreed upon; nil: they are manual.
  public var keys: PlannedKeys?
  /// What the key for sending is called in messages to the operator: the file it is in.
  public var sendKeyName: String
  /// The same for receiving.
  public var receiveKeyName: String
  /// Tickets of its paths through hairpin proxies.
  var hairpins: [PlannedHairpin]
  /// What certificates have to be for, by where its TLS paths lead.
  var certificateNames: [Endpoint: String] = [:]

  init(
    _ configuration: PeerConfiguration, sendKeyName: String, receiveKeyName: String, hairpins: [PlannedHairpin] = []
  ) {
    self.configuration = configuration
    self.sendKeyName = sendKeyName
    self.receiveKeyName = receiveKeyName
    self.hairpins = hairpins
  }

  /// As if keys had been agreed upon, by the first suite that may be; those are nobody's.
  func supposeKeys(_ place: Int, in configuration: inout PeerConfiguration) {
    guard let keys, let suite = keys.partner.suites.first, let cipher = Cipher(rawValue: suite.cipher.rawValue) else {
      return
    }
    var random = SystemRandomNumberGenerator()
    func association() -> SecurityAssociationConfiguration {
      let key = (0..<cipher.keyMaterialLength).map { _ in UInt8.random(in: .min ... .max, using: &random) }
      return SecurityAssociationConfiguration(
        spi: UInt32(clamping: 0xFFFF_0000 + place), cipher: cipher, key: KeyMaterial(key), implicitIV: suite.implicitIV)
    }
    configuration.negotiatesKeys = false
    configuration.inbound = [association()]
    configuration.outbound = association()
  }

  init(
    _ configuration: PeerConfiguration, keys: PlannedKeys, replayWindow: Int, hairpins: [PlannedHairpin] = []
  ) {
    self.init(configuration, sendKeyName: "", receiveKeyName: "", hairpins: hairpins)
    self.keys = keys
    self.keys?.terms.replayWindow = replayWindow
  }
}

/// A ticket by which a peer is met at a hairpin proxy, and the kind of path to the proxy.
struct PlannedHairpin: Sendable, Equatable {
  var file: HairpinTicketFile
  var path: Encapsulation
  /// Where the proxy is met inside TLS; nil: it is not.
  var tls: Endpoint?
  /// What the certificate there has to be for; nil: any will do.
  var certificateName: String?

  var entry: HairpinTransport.Entry {
    tls.map { HairpinTransport.Entry(file, tlsAt: $0, name: certificateName) } ?? HairpinTransport.Entry(file, path)
  }

  /// "203.0.113.9:4501 over UDP"
  var place: String { "\(tls ?? file.proxy) over \(tls == nil ? "\(path)" : "TLS")" }

  static func == (a: PlannedHairpin, b: PlannedHairpin) -> Bool {
    a.file.leadsWhere(b.file) && a.path == b.path && a.tls == b.tls && a.certificateName == b.certificateName
  }
}

/// Places in a gateway's list of transports: paths name a transport by its place.
enum TransportPlace {
  static let datagrams: UInt8 = 0
  static let streams: UInt8 = 1
  static let encryptedStreams: UInt8 = 2
  static let hairpins: UInt8 = 3
}
