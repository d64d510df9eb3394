import PacketIO
import Testing

@testable import Dataplane

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
    let derived = KeyDerivation.hkdfSHA256(
      secret: KeyMaterial(hex(secret)), salt: hex(salt), info: hex(info), count: hex(output).count)
    #expect(derived == KeyMaterial(hex(output)))
  }

  @Test func itsLimitsAreWithinOpenSSLs() {
    let secret = KeyMaterial([1])
    let long = KeyDerivation.hkdfSHA256(secret: secret, salt: [], info: Array(repeating: 2, count: 1024), count: 8160)
    let short = KeyDerivation.hkdfSHA256(secret: secret, salt: [], info: Array(repeating: 2, count: 1024), count: 1)
    #expect(unsafe long.withBytes { unsafe $0[0] } == short.withBytes { unsafe $0[0] })
  }

  @Test func bytesTakenAreZeroed() {
    var bytes: [UInt8] = [1, 2, 3]
    #expect(KeyMaterial(taking: &bytes) == KeyMaterial([1, 2, 3]))
    #expect(bytes.isEmpty)
  }
}

@Suite struct StaticAssociationsTests {
  let secret = KeyMaterial((0..<32).map { UInt8($0) })

  @Test(arguments: Cipher.allCases)
  func whatOneSealsTheOtherOpens(cipher: Cipher) throws {
    let a = try StaticAssociations(secret: secret, local: "north", remote: "south", cipher: cipher)
    let b = try StaticAssociations(secret: secret, local: "south", remote: "north", cipher: cipher)
    #expect(a.outbound == b.inbound)
    #expect(a.inbound == b.outbound)
    #expect(a.outbound.key != a.inbound.key)
    #expect(a.outbound.key.count == cipher.keyMaterialLength)
    #expect(a.outbound.spi >= 256 && a.inbound.spi >= 256)
  }

  /// No two of the associations of a pair of gateways have a key or an SPI in common, and the SPI names the worker.
  @Test func eachWorkerHasItsOwn() throws {
    var keys: [KeyMaterial] = []
    var spis: Set<UInt32> = []
    for worker in [nil] + (0..<StaticAssociations.mostWorkers).map({ Int?.some($0) }) {
      let derived = try StaticAssociations(
        secret: secret, local: "north", remote: "south", cipher: .aes128GCM, worker: worker)
      let other = try StaticAssociations(
        secret: secret, local: "south", remote: "north", cipher: .aes128GCM, worker: worker)
      #expect(derived.outbound == other.inbound && derived.inbound == other.outbound)
      for half in [derived.outbound, derived.inbound] {
        #expect(!keys.contains(half.key) && spis.insert(half.spi).inserted && half.spi >= 256)
        if let worker { #expect(half.spi & 15 == UInt32(worker)) }
        keys.append(half.key)
      }
    }
  }

  /// As below, for worker 3; its number takes the place of the SPI's last four bits.
  @Test(arguments: [
    (Cipher.aes128GCM, "5e0378fec1ed0b4128a163fee8895206fe087fd813cef830"),
    (Cipher.aes256GCM, "5cf4e29ab9e6787d6aa9f0e5bab2a5cca816c950218decf1afae3e2b7da6a15a9e46bac7fba600d4"),
    (Cipher.chacha20Poly1305, "67848c0eaf38f6eb744d6584143ecc130bf9677ff50b067137ef57f3ffb04f1b1336584cd85e9772"),
  ])
  func othersComputeAWorkersTheSame(cipher: Cipher, expected: String) throws {
    let bytes = hex(expected)
    let derived = try StaticAssociations(secret: secret, local: "north", remote: "süd", cipher: cipher, worker: 3)
    #expect(UInt64(derived.outbound.spi) == bigEndian(bytes[0..<4]) & ~15 | 3)
    #expect(derived.outbound.key == KeyMaterial(Array(bytes[4...])))
  }

  /// Computed apart from this code, with Python's hmac module, from the recipe in the documentation.
  @Test(arguments: [
    (Cipher.aes128GCM, "c4c438c3eb461643da755f0f1af1e66bb9fe316e1a6b8ae7"),
    (Cipher.aes256GCM, "188baeede7c071e35ea0e92c7f5b777eb466ea365dbe166659452001e736b80f0d1509193da65825"),
    (Cipher.chacha20Poly1305, "2ce563e4560ff2e9175ee54fc54f35ff69d37a0e56f3a747784ec7662351476ecca9596e8e745f2e"),
  ])
  func othersComputeTheSame(cipher: Cipher, expected: String) throws {
    let bytes = hex(expected)
    let outbound = try StaticAssociations(secret: secret, local: "north", remote: "süd", cipher: cipher).outbound
    #expect(UInt64(outbound.spi) == bigEndian(bytes[0..<4]))
    #expect(outbound.key == KeyMaterial(Array(bytes[4...])))
  }

  @Test func everyPartOfTheInputCounts() throws {
    let other = KeyMaterial((1..<33).map { UInt8($0) })
    let keys = try [
      StaticAssociations(secret: secret, local: "a", remote: "bc", cipher: .aes256GCM),
      StaticAssociations(secret: secret, local: "ab", remote: "c", cipher: .aes256GCM),
      StaticAssociations(secret: secret, local: "a", remote: "bc", cipher: .chacha20Poly1305),
      StaticAssociations(secret: other, local: "a", remote: "bc", cipher: .aes256GCM),
    ].flatMap { [$0.outbound.key, $0.inbound.key] }
    for (i, key) in keys.enumerated() {
      for later in keys[(i + 1)...] { #expect(key != later) }
    }
  }

  @Test func badInputIsRefused() {
    func problem(_ secret: KeyMaterial, _ local: String, _ remote: String) -> String? {
      do throws(ConfigurationError) {
        _ = try StaticAssociations(secret: secret, local: local, remote: remote, cipher: .aes128GCM)
        return nil
      } catch {
        #expect(error.subject == .peer(remote))
        return error.setting
      }
    }
    #expect(problem(KeyMaterial(Array(repeating: 1, count: 31)), "a", "b") == "secret")
    #expect(problem(secret, "a", "a") == "name")
    #expect(problem(secret, "", "b") == "name")
    #expect(problem(secret, "a", String(repeating: "é", count: 128)) == "name")
    #expect(problem(secret, "a", String(repeating: "b", count: 255)) == nil)
  }
}
