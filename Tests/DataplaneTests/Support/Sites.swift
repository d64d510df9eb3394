import PacketIO

@testable import Dataplane

/// Two sites with a tunnel between them, each seen as the other's only peer: "alpha" has 10.1.0.0/16 and
/// fd00:1::/32, "beta" has 10.2.0.0/16 and fd00:2::/32.
struct Sites {
  var cipher = Cipher.aes128GCM
  var extended = true
  var implicitIV = false
  var replayWindow = 2048
  var firstSequence: UInt64 = 1
  var lease: SequenceLease?
  /// Tells keys apart.
  var key: UInt8 = 1
  /// Whether small packets share ESP packets, each way.
  var aggregates = false
  /// Where alpha sends.
  var path: Path? = .path(2)

  static let alphaPrefixes = [Prefix("10.1.0.0/16")!, Prefix("fd00:1::/32")!]
  static let betaPrefixes = [Prefix("10.2.0.0/16")!, Prefix("fd00:2::/32")!]
  static let alphaSPI: UInt32 = 0xA1A1_0001
  static let betaSPI: UInt32 = 0xB2B2_0002

  /// Under which alpha seals; beta's is one higher.
  var keyMaterial: KeyMaterial { KeyMaterial(keyBytes) }
  var keyBytes: [UInt8] { (0..<UInt8(cipher.keyMaterialLength)).map { $0 &* 7 &+ key &* 16 } }

  /// Alpha's outbound association, and with it beta's inbound one.
  var association: SecurityAssociationConfiguration {
    SecurityAssociationConfiguration(
      spi: Sites.alphaSPI, cipher: cipher, key: keyMaterial, extendedSequenceNumbers: extended,
      implicitIV: implicitIV, replayWindow: replayWindow, firstSequence: firstSequence, lease: lease)
  }

  private var reverse: SecurityAssociationConfiguration {
    var other = self
    other.key = key &+ 1
    var association = other.association
    association.spi = Sites.betaSPI
    association.lease = nil
    return association
  }

  /// What alpha is told.
  var alphaConfiguration: Configuration {
    Configuration(
      interface: InterfaceConfiguration(source: .name("alpha")),
      peers: [
        PeerConfiguration(
          name: "beta", prefixes: Sites.betaPrefixes, path: path, inbound: [reverse], outbound: association,
          aggregates: aggregates)
      ])
  }

  /// What beta is told; alpha's address is to be learned.
  var betaConfiguration: Configuration {
    Configuration(
      interface: InterfaceConfiguration(source: .name("beta")),
      peers: [
        PeerConfiguration(
          name: "alpha", prefixes: Sites.alphaPrefixes, path: nil, inbound: [association], outbound: reverse,
          aggregates: aggregates)
      ])
  }

  func alpha(buffers: Int = 48) -> TestGateway { TestGateway(alphaConfiguration, buffers: buffers) }
  func beta(buffers: Int = 48, offloads: TunOffloads = .all) -> TestGateway {
    TestGateway(betaConfiguration, buffers: buffers, offloads: offloads)
  }
}

/// ESP as RFC 4303 §2 draws it, taken apart and put together byte by byte.
struct SlowESP {
  var spi: UInt32
  let extended: Bool
  let implicitIV: Bool
  private let aead: ArrayAEAD

  init(_ association: SecurityAssociationConfiguration) {
    spi = association.spi
    extended = association.extendedSequenceNumbers
    implicitIV = association.implicitIV
    // The slowest engine: gateways under test use the fastest.
    aead = ArrayAEAD(
      association.cipher, key: association.key.withBytes { Array($0) }, sealing: .by(CipherEngine.available.last!))
  }

  init(_ sites: Sites) { self.init(sites.association) }

  /// What a sealed packet holds.
  struct Content: Equatable {
    var spi: UInt32
    var sequence: UInt32
    var iv: UInt64
    /// Between IV and padding.
    var payload: [UInt8]
    var padding: [UInt8]
    var nextHeader: UInt8
  }

  private func data(_ sequence: UInt64) -> AdditionalData {
    AdditionalData(be32(spi) + (extended ? be64(sequence) : be32(UInt32(truncatingIfNeeded: sequence))))
  }

  /// - Parameter high: the upper half of the sequence number, which is not in the packet.
  func open(_ packet: [UInt8], high: UInt32 = 0) -> Content? {
    let front = implicitIV ? 8 : 16
    guard packet.count >= front + 18 else { return nil }
    let sequence = UInt64(high) << 32 | bigEndian(packet[4..<8])
    let iv = implicitIV ? sequence : bigEndian(packet[8..<16])
    guard bigEndian(packet[0..<4]) == UInt64(spi),
      let plain = aead.open(iv: iv, data(sequence), Array(packet[front...]))
    else { return nil }
    let padLength = Int(plain[plain.count - 2])
    guard padLength + 2 <= plain.count else { return nil }
    return Content(
      spi: spi, sequence: UInt32(truncatingIfNeeded: sequence), iv: iv, payload: Array(plain.dropLast(2 + padLength)),
      padding: Array(plain.dropLast(2).suffix(padLength)), nextHeader: plain[plain.count - 1])
  }

  /// Seals anything, right or wrong.
  /// - Parameters:
  ///   - padding: nil: as much as the 4-byte boundary needs, 1, 2, 3, ….
  ///   - padLength: what the pad length field says; nil: the truth.
  func seal(
    _ payload: [UInt8], sequence: UInt64, nextHeader: UInt8, padding: [UInt8]? = nil, padLength: UInt8? = nil
  ) -> [UInt8] {
    let needed = (4 - (payload.count + 2) % 4) % 4
    let padding = padding ?? Array([1, 2, 3].prefix(needed))
    let plain = payload + padding + [padLength ?? UInt8(padding.count), nextHeader]
    return be32(spi) + be32(UInt32(truncatingIfNeeded: sequence)) + (implicitIV ? [] : be64(sequence))
      + aead.seal(iv: sequence, data(sequence), plain)
  }

  func seal(_ packet: PacketSketch, sequence: UInt64) -> [UInt8] {
    seal(packet.bytes, sequence: sequence, nextHeader: packet.isV4 ? 4 : 41)
  }
}
