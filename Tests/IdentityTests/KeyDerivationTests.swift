import PacketIO
import Testing

@testable import Identity
@testable import KeyDerivation

@Suite struct KeyDerivationTests {
  /// RFC 5869 appendices A.1 to A.3.
  @Test(arguments: [
    (
      secret: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
      salt: "000102030405060708090a0b0c", info: "f0f1f2f3f4f5f6f7f8f9",
      output: "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    ),
    (
      secret: """
      000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627
      28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f
      """,
      salt: """
      606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687
      88898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf
      """,
      info: """
      b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7
      d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff
      """,
      output: """
      b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272
      71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87
      """
    ),
    (
      secret: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", salt: "", info: "",
      output: "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    ),
  ])
  func publishedVectors(secret: String, salt: String, info: String, output: String) {
    let derived = KeyedHash.hkdfSHA256(
      secret: KeyMaterial(hex(secret)), salt: hex(salt), info: hex(info), count: hex(output).count)
    #expect(derived == KeyMaterial(hex(output)))
  }

  @Test func itsLimitsAreWithinOpenSSLs() {
    let secret = KeyMaterial([1])
    let long = KeyedHash.hkdfSHA256(secret: secret, salt: [], info: Array(repeating: 2, count: 1024), count: 8160)
    let short = KeyedHash.hkdfSHA256(secret: secret, salt: [], info: Array(repeating: 2, count: 1024), count: 1)
    #expect(unsafe long.withBytes { unsafe $0[0] } == short.withBytes { unsafe $0[0] })
  }

  @Test func bytesTakenAreZeroed() {
    var bytes: [UInt8] = [1, 2, 3]
    #expect(KeyMaterial(taking: &bytes) == KeyMaterial([1, 2, 3]))
    #expect(bytes.isEmpty)
  }
}
