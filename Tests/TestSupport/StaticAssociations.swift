public import Dataplane
import Identity
import KeyDerivation
public import PacketIO

/// SPIs and keys for both directions between two gateways, from one number that both know: for tests, which need keys that
/// are the same each time. A gateway that did so would repeat its nonces.
public struct StaticAssociations: Sendable, Equatable {
  /// Under which this gateway seals.
  public let outbound: (spi: UInt32, key: KeyMaterial)
  /// Under which the partner seals.
  public let inbound: (spi: UInt32, key: KeyMaterial)

  /// - Parameters:
  ///   - worker: nil: the associations that there always are; a number from 0 to 15: those of one of several workers.
  ///   - secret: 32 bytes or more, random.
  ///   - local: this gateway's name, 1 to 255 bytes.
  ///   - remote: the partner's name, as the partner itself gives it as `local`.
  public init(secret: KeyMaterial, local: String, remote: String, cipher: Cipher, worker: Int? = nil) {
    outbound = StaticAssociations.derive(secret, from: local, to: remote, cipher, worker)
    inbound = StaticAssociations.derive(secret, from: remote, to: local, cipher, worker)
  }

  private static func derive(
    _ secret: KeyMaterial, from sender: String, to receiver: String, _ cipher: Cipher, _ worker: Int?
  ) -> (spi: UInt32, key: KeyMaterial) {
    var info: [UInt8] = []
    for field in ["culvert \(worker == nil ? "static" : "worker") association v1", cipher.rawValue, sender, receiver] {
      info.append(UInt8(field.utf8.count))
      info.append(contentsOf: field.utf8)
    }
    if let worker { info.append(UInt8(worker)) }
    let output = KeyedHash.hkdfSHA256(
      secret: secret, salt: [], info: info, count: 4 + cipher.keyMaterialLength)
    return unsafe output.withBytes { bytes in
      let number = unsafe UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))
      let key = unsafe [UInt8](bytes.dropFirst(4))
      let spi = number < 256 ? number + 256 : number
      return (spi: worker.map { spi & ~15 | UInt32($0) } ?? spi, key: KeyMaterial(key))
    }
  }

  public static func == (a: StaticAssociations, b: StaticAssociations) -> Bool {
    a.outbound == b.outbound && a.inbound == b.inbound
  }
}
