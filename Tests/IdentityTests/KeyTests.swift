import Foundation
import Identity
import KeyDerivation
import PacketIO
import Testing

@Suite struct HostIdentityTagTests {
  @Test func onlyThePrefixMakesATag() {
    #expect(HostIdentityTag("2001:20::") != nil && HostIdentityTag("2001:2f:ffff::1") != nil)
    for text in ["2001:1f::1", "2001:30::1", "::", "10.0.0.1", "", "2001:22", "2001:22::1%eth0", "::ffff:1.2.3.4"] {
      #expect(HostIdentityTag(text) == nil, "\(text)")
    }
    let bytes = hex("20010022dcea9bd2f186cea97b90e009")
    #expect(HostIdentityTag(bytes)?.bytes == bytes)
    #expect(HostIdentityTag(bytes[0..<15]) == nil && HostIdentityTag(bytes + [0]) == nil)
    #expect(HostIdentityTag([UInt8](repeating: 0, count: 16)) == nil)
    #expect(HostIdentityTag("\(HostIdentityTag(bytes)!)") == HostIdentityTag(bytes))
  }

  @Test func suitesAreFourBits() {
    #expect(HostIdentityTag("2001:21::")?.suite == .rsa && HostIdentityTag("2001:22::")?.suite == .ecdsa)
    #expect(HostIdentityTag("2001:25::")?.suite == .edDSA)
    #expect(HostIdentityTag("2001:23::").map { $0.suite == nil } == true)
  }

  @Test func orderIsThatOfNumbers() throws {
    let tags = try ["2001:20::", "2001:20::1", "2001:20::8000:0:0:0", "2001:20:8000::", "2001:2f::"]
      .map { try #require(HostIdentityTag($0)) }
    #expect(tags.shuffled().sorted() == tags)
  }

  @Test func shortFormIsBase32() {
    let identity = HostIdentity(secret: KeyMaterial(Array(0..<32)), name: "oslo")
    #expect(identity.tag.short == "qedh3-mykdf-wcnp7-quvkq")
    #expect(HostIdentityTag("2001:20::")?.short == "aaaaa-aaaaa-aaaaa-aaaaa")
  }
}

@Suite struct HostIdentityTests {
  /// By another program from the rule in the documentation.
  @Test func sharedSecretsMakeIdentities() {
    let secret = KeyMaterial(Array(0..<32))
    let bergen = HostIdentity(secret: secret, name: "bergen")
    #expect(bergen.tag.description == "2001:22:9933:514b:fa6a:497:eb76:3d6a")
    #expect(HostIdentity(secret: secret, name: "oslo").tag.description == "2001:22:8106:7db3:a19:6c26:bff0:a555")
    #expect(HostIdentity(secret: secret, name: "bergen").publicIdentity == bergen.publicIdentity)
    #expect(bergen.publicIdentity.isValid(signature: bergen.sign([1]), over: [1]))
    #expect("\(bergen)" == "private key of \(bergen.tag)")
    // None of these ends the program.
    _ = HostIdentity(secret: secret, name: "")
    _ = HostIdentity(secret: secret, name: String(repeating: "x", count: 5000))
  }

  @Test(arguments: HostIdentity.Kind.allCases) func keysAreWrittenAndRead(kind: HostIdentity.Kind) throws {
    let identity = HostIdentity.generate(kind)
    let read = try HostIdentity(pem: identity.pem())
    #expect(read.publicIdentity == identity.publicIdentity && read.tag == identity.tag)
    #expect(identity.publicIdentity.isValid(signature: read.sign([1, 2]), over: [1, 2]))
    #expect(String(decoding: identity.pem().bytes, as: UTF8.self).hasPrefix("-----BEGIN PRIVATE KEY-----\n"))
    let text = identity.publicIdentity.pem
    #expect(text.hasPrefix("-----BEGIN PUBLIC KEY-----\n"))
    let half = try PublicHostIdentity(pem: text)
    #expect(half == identity.publicIdentity && half.hashValue == identity.publicIdentity.hashValue)
    #expect(HostIdentity.generate(.p256).tag != identity.tag)
  }

  @Test(arguments: HostIdentity.Kind.allCases) func signaturesOfOtherLengthsAreRefused(kind: HostIdentity.Kind) {
    let identity = HostIdentity.generate(kind)
    let signature = identity.sign([5])
    let lengths: [HostIdentity.Kind: Int] = [.p256: 64, .p384: 96, .ed25519: 64, .rsa2048: 256, .rsa3072: 384]
    #expect(signature.count == lengths[kind])
    let zeros = [UInt8](repeating: 0, count: 64)
    for wrong: [UInt8] in [[], [0], signature.dropLast(), signature + [0], [0] + signature, zeros] {
      #expect(!identity.publicIdentity.isValid(signature: wrong, over: [5]))
    }
    #expect(!identity.publicIdentity.isValid(signature: [UInt8](repeating: 255, count: signature.count), over: [5]))
    #expect(identity.publicIdentity.isValid(signature: signature, over: [5]))
    #expect(!identity.publicIdentity.isValid(signature: signature, over: []))
  }

  /// Tags by another program.
  @Test func keysOfOthersAreRead() throws {
    func tag(_ pem: String) throws -> String { try HostIdentity(pem: KeyMaterial(Array(pem.utf8))).tag.description }
    #expect(try tag(KeyTexts.p256) == "2001:22:4e18:b42c:ac65:3c9d:5f03:ff79")
    #expect(try tag(KeyTexts.rsa2048) == "2001:21:d95d:4802:e7b6:aeef:b741:50bd")
    for text in [KeyTexts.p256Public, KeyTexts.p256PublicCompressed] {
      #expect(try PublicHostIdentity(pem: text).tag.description == "2001:22:4e18:b42c:ac65:3c9d:5f03:ff79")
    }
    #expect(
      try PublicHostIdentity(pem: KeyTexts.rsa2048Public).tag.description == "2001:21:d95d:4802:e7b6:aeef:b741:50bd")
  }

  @Test func keysThatCannotBeUsedAreRefused() {
    func problem(_ pem: String) -> String? {
      do throws(HostIdentityError) {
        _ = try HostIdentity(pem: KeyMaterial(Array(pem.utf8)))
        return nil
      } catch {
        #expect(!error.remedy.isEmpty)
        return error.problem
      }
    }
    #expect(problem(KeyTexts.rsa1024) == "an RSA key of 1024 bits is not supported")
    for pem in [KeyTexts.secp256k1, KeyTexts.x25519, KeyTexts.ed448] {
      #expect(problem(pem) == "the key is of a kind that is not supported")
    }
    #expect(problem(KeyTexts.encrypted) == "the private key is encrypted")
    #expect(problem(KeyTexts.halvesOfTwo)?.contains("do not belong together") == true)
    for pem in ["", "-----BEGIN PRIVATE KEY-----\n", KeyTexts.p256Public, String(KeyTexts.p256.dropLast(40))] {
      #expect(problem(pem) == "it holds no private key in PEM form")
    }
    for pem in [KeyTexts.p256, "", KeyTexts.rsa1024Public, "\u{0}"] {
      #expect(throws: HostIdentityError.self) { _ = try PublicHostIdentity(pem: pem) }
    }
  }

  /// A bit of a factor is wrong, as on a disk that fails: the library cannot sign with that, and nothing traps.
  @Test func aDamagedKeyIsRefused() throws {
    let pem = HostIdentity.generate(.rsa2048).pem()
    let text = unsafe pem.withBytes { unsafe String(decoding: $0, as: UTF8.self) }
    let lines = text.split(separator: "\n").filter { !$0.hasPrefix("-") }
    var der = Array(try #require(Data(base64Encoded: lines.joined())))
    // In the octets of PKCS#8: version, n, e, d, p.
    func content(_ place: Int) -> Range<Int> {
      let long = Int(der[place + 1] & 0x7F)
      guard der[place + 1] & 0x80 != 0 else { return place + 2..<place + 2 + long }
      let count = der[place + 2..<place + 2 + long].reduce(0) { $0 << 8 | Int($1) }
      return place + 2 + long..<place + 2 + long + count
    }
    let octets = content(content(content(0).lowerBound).upperBound + 15)
    var number = content(content(octets.lowerBound).lowerBound)
    for _ in 0..<4 { number = content(number.upperBound) }
    der[number.upperBound - 1] ^= 1
    let damaged =
      "-----BEGIN PRIVATE KEY-----\n" + Data(der).base64EncodedString(options: .lineLength64Characters)
      + "\n-----END PRIVATE KEY-----\n"
    #expect(throws: HostIdentityError.self) { _ = try HostIdentity(pem: KeyMaterial(Array(damaged.utf8))) }
  }

  @Test func publicKeysThatCannotBeUsedAreRefused() throws {
    let p256 = HostIdentity.generate(.p256).publicIdentity
    let p384 = HostIdentity.generate(.p384).publicIdentity
    let ed = HostIdentity.generate(.ed25519).publicIdentity
    let rsa = HostIdentity.generate(.rsa2048).publicIdentity
    for identity in [p256, p384, ed, rsa] {
      let id = identity.hostID
      #expect(PublicHostIdentity(hostID: id) == identity)
      for count in 0..<id.count { #expect(PublicHostIdentity(hostID: id[..<count]) == nil) }
      #expect(PublicHostIdentity(hostID: id + [0]) == nil)
      // Another algorithm's number.
      for algorithm: UInt8 in 0...16 where UInt16(algorithm) != identity.algorithm {
        var other = id
        other[5] = algorithm
        #expect(PublicHostIdentity(hostID: other) == nil)
      }
    }
    // A domain identifier is skipped, and only as long as it says.
    var named = p256.hostID + Array("gw".utf8)
    #expect(PublicHostIdentity(hostID: named) == nil)
    named[2...3] = [0x10, 2]
    #expect(PublicHostIdentity(hostID: named) == p256)
    named[3] = 3
    #expect(PublicHostIdentity(hostID: named) == nil)
    // Off the curve, at infinity, another form, another curve.
    var key = p256.hostIdentity
    key[66] ^= 1
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: key) == nil)
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: [0, 1, 0]) == nil)
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: [0, 1, 2] + p256.hostIdentity[3..<35]) == nil)
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: [0, 1, 4] + [UInt8](repeating: 0, count: 64)) == nil)
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: [0, 1, 4] + [UInt8](repeating: 255, count: 64)) == nil)
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: [0, 2] + p256.hostIdentity[2...]) == nil)
    #expect(PublicHostIdentity(algorithm: 7, hostIdentity: [0, 3] + p256.hostIdentity[2...]) == nil)
  }

  @Test func rsaHasOneFormAndASize() {
    let modulus = [0x80] + [UInt8](repeating: 1, count: 255)
    func isRead(_ exponent: [UInt8], _ modulus: [UInt8]) -> Bool {
      PublicHostIdentity(algorithm: 5, hostIdentity: [UInt8(exponent.count)] + exponent + modulus) != nil
    }
    #expect(isRead([1, 0, 1], modulus) && isRead([3], modulus))
    #expect(isRead([3], [0x80] + [UInt8](repeating: 1, count: 383)))
    // Too short by one bit, too long by a byte, a zero in front, even.
    #expect(!isRead([3], [0x7F] + modulus.dropFirst()) && !isRead([3], [0x80] + [UInt8](repeating: 1, count: 384)))
    #expect(!isRead([3], [0] + modulus) && !isRead([3], modulus.dropLast() + [2]))
    #expect(!isRead([1], modulus) && !isRead([2], modulus) && !isRead([0, 3], modulus) && !isRead([], modulus))
    #expect(!isRead([UInt8](repeating: 1, count: 9), modulus))
    #expect(PublicHostIdentity(algorithm: 5, hostIdentity: [0, 0, 1, 3] + modulus) == nil)
    #expect(PublicHostIdentity(algorithm: 5, hostIdentity: [200, 3]) == nil)
    #expect(PublicHostIdentity(algorithm: 5, hostIdentity: [UInt8]()) == nil)
  }
}

@Suite struct DiffieHellmanTests {
  static let order = hex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")

  @Test(arguments: DiffieHellmanGroup.allCases) func bothSidesAgree(group: DiffieHellmanGroup) throws {
    let scalars = [1, 2].map { KeyMaterial([UInt8](repeating: $0, count: group.secretLength)) }
    let keys = try scalars.map { try #require(DiffieHellmanKey(group: group, scalar: $0)) }
    let secret = try #require(keys[0].agree(with: keys[1].publicValue))
    #expect(secret == keys[1].agree(with: keys[0].publicValue))
    #expect(secret.count == group.secretLength && keys[0].publicValue.count == group.publicLength)
    for value in [[], keys[1].publicValue.dropLast(), keys[1].publicValue + [0], [4] + keys[1].publicValue] {
      #expect(keys[0].agree(with: Array(value)) == nil)
    }
  }

  /// Points of small order give a secret of zeros, whatever the key.
  @Test(arguments: [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  ])
  func secretsOfZerosAreRefused(value: String) throws {
    let key = try #require(DiffieHellmanKey(group: .x25519, scalar: KeyMaterial(sha256("dh-i"))))
    #expect(key.agree(with: hex(value)) == nil)
  }

  @Test(arguments: [DiffieHellmanGroup.p256, .p384])
  func pointsOffTheCurveAreRefused(group: DiffieHellmanGroup) throws {
    let key = try #require(
      DiffieHellmanKey(group: group, scalar: KeyMaterial([UInt8](repeating: 9, count: group.secretLength))))
    for place in 0..<group.publicLength {
      var value = key.publicValue
      value[place] ^= 1
      #expect(key.agree(with: value) == nil, "byte \(place)")
    }
    #expect(key.agree(with: [UInt8](repeating: 0, count: group.publicLength)) == nil)
    #expect(key.agree(with: [UInt8](repeating: 255, count: group.publicLength)) == nil)
  }

  @Test func scalarsOutOfRangeAreReduced() throws {
    func value(_ scalar: [UInt8]) throws -> [UInt8] {
      try #require(DiffieHellmanKey(group: .p256, scalar: KeyMaterial(scalar))).publicValue
    }
    let one = [UInt8](repeating: 0, count: 31) + [1]
    // n is 1 + (1 mod (n - 1)), 0 is 1 + 0, n - 1 is a scalar.
    var two = one
    two[31] = 2
    var last = Self.order
    last[31] -= 1
    #expect(try value(Self.order) == value(two))
    #expect(try value([UInt8](repeating: 0, count: 32)) == value(one))
    #expect(try value(last) != value(one))
    #expect(try value([UInt8](repeating: 0, count: 16) + last) == value(last))
    #expect(try value([UInt8](repeating: 255, count: 48)).count == 64)
    for group in DiffieHellmanGroup.allCases {
      for count in [0, 1, 31, 33, 47, 49] {
        #expect(DiffieHellmanKey(group: group, scalar: KeyMaterial([UInt8](repeating: 1, count: count))) == nil)
      }
    }
    #expect(DiffieHellmanKey(group: .x25519, scalar: KeyMaterial([UInt8](repeating: 1, count: 48))) == nil)
    #expect(DiffieHellmanKey(group: .p384, scalar: KeyMaterial([UInt8](repeating: 1, count: 32))) == nil)
  }
}
