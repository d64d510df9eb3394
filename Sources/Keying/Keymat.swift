import Identity
import KeyDerivation
import PacketIO

/// Keying material that keys are drawn from one after the other (RFC 7401 §6.5, RFC 7402 §7).
struct Keymat {
  private let material: KeyMaterial
  private(set) var index = 0

  /// Bytes there are.
  static let length = 2048
  /// Where what the next keys build upon is drawn from.
  private static let chainIndex = 1984

  /// - Parameters:
  ///   - salt: #I and #J.
  ///   - ends: both sides' tags, whichever order.
  init(secret: KeyMaterial, salt: [UInt8], between ends: (HostIdentityTag, HostIdentityTag), _ suite: HostIdentitySuite)
  {
    let info = min(ends.0, ends.1).bytes + max(ends.0, ends.1).bytes
    material = suite.derive(secret: secret, salt: salt, info: info, count: Keymat.length)
  }

  /// The next `count` bytes.
  mutating func draw(_ count: Int) -> KeyMaterial {
    defer { index += count }
    return material.slice(index, count)
  }

  mutating func skip(to index: Int) { self.index = max(self.index, index) }

  var chain: KeyMaterial { material.slice(Keymat.chainIndex, 32) }
}

/// Where keys for the packets of a handshake end and those for traffic begin.
enum KeymatIndex {
  /// HIP_CIPHER 4 is AES-256-CBC, 2 AES-128-CBC; their keys are drawn though nothing is encrypted.
  static func cipherKeyLength(_ cipher: UInt16) -> Int { cipher == 2 ? 16 : 32 }

  static func traffic(_ suite: HostIdentitySuite, cipher: UInt16) -> Int {
    2 * (cipherKeyLength(cipher) + suite.macLength)
  }
}

/// Keys of both directions, for each worker one.
struct TrafficKeys {
  var inbound: [TrafficKey] = []
  var outbound: [TrafficKey] = []

  /// Draws them: for each worker first what the side with the greater tag sends under, then the other's.
  init(
    from keymat: inout Keymat, _ suite: ESPSuite, isGreater: Bool, inboundSPI: UInt32, outboundSPI: UInt32,
    workers: (local: Int, peer: Int)
  ) {
    let length = suite.cipher.keyMaterialLength
    for worker in 0..<max(workers.local, workers.peer) {
      let number = UInt32(truncatingIfNeeded: worker)
      let (greater, smaller) = (keymat.draw(length), keymat.draw(length))
      if worker < workers.local {
        outbound.append(TrafficKey(spi: outboundSPI | number, suite: suite, key: isGreater ? greater : smaller))
      }
      if worker < workers.peer {
        inbound.append(TrafficKey(spi: inboundSPI | number, suite: suite, key: isGreater ? smaller : greater))
      }
    }
  }
}
