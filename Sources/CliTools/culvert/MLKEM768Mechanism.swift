import Crypto
import Foundation
import Keying
import PacketIO

/// ML-KEM-768 (FIPS 203), of swift-crypto.
struct MLKEM768Mechanism: KeyEncapsulation {
  var mechanism: UInt8 { 1 }
  var keyLength: Int { 1184 }
  var ciphertextLength: Int { 1088 }

  func makeKey() -> (publicKey: [UInt8], open: @Sendable ([UInt8]) -> KeyMaterial?) {
    // It fails where there is no randomness; without a key the peer's half is never opened, and the rekey comes to nothing.
    guard let key = try? MLKEM768.PrivateKey() else { return ([UInt8](repeating: 0, count: keyLength), { _ in nil }) }
    return (
      Array(key.publicKey.rawRepresentation),
      { ciphertext in (try? key.decapsulate(Data(ciphertext))).map(MLKEM768Mechanism.material) }
    )
  }

  func encapsulate(to publicKey: [UInt8]) -> (ciphertext: [UInt8], secret: KeyMaterial)? {
    // The initialiser makes the modulus check of FIPS 203 §7.2.
    guard let key = try? MLKEM768.PublicKey(rawRepresentation: Data(publicKey)), let result = try? key.encapsulate()
    else { return nil }
    return (Array(result.encapsulated), MLKEM768Mechanism.material(result.sharedSecret))
  }

  private static func material(_ key: SymmetricKey) -> KeyMaterial {
    unsafe key.withUnsafeBytes { bytes in
      var copy = unsafe [UInt8](bytes)
      return KeyMaterial(taking: &copy)
    }
  }
}
