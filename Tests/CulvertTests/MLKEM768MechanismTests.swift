import Keying
import PacketIO
import Testing

@testable import culvert

struct MLKEM768MechanismTests {
  private let mechanism = MLKEM768Mechanism()

  @Test func bothHaveTheSameSecret() throws {
    let (key, open) = mechanism.makeKey()
    #expect(key.count == mechanism.keyLength)
    let (ciphertext, secret) = try #require(mechanism.encapsulate(to: key))
    #expect(ciphertext.count == mechanism.ciphertextLength)
    #expect(secret.count == 32)
    #expect(open(ciphertext) == secret)
    #expect(mechanism.encapsulate(to: key)?.secret != secret)
    // FIPS 203 §6.3: an altered ciphertext gives another secret, and no error.
    var altered = ciphertext
    altered[7] ^= 1
    #expect(open(altered) != secret)
  }

  @Test func whatIsNoKeyIsRefused() {
    let (key, open) = mechanism.makeKey()
    #expect(mechanism.encapsulate(to: Array(key.dropLast())) == nil)
    #expect(mechanism.encapsulate(to: key + [0]) == nil)
    // FIPS 203 §7.2: coefficients at or above the modulus.
    #expect(mechanism.encapsulate(to: [UInt8](repeating: 0xFF, count: key.count)) == nil)
    #expect(open([]) == nil)
  }
}
