import Identity
import KeyDerivation
import PacketIO
import Testing

/// Published vectors of what the packets are made of.
@Suite struct PrimitiveTests {
  /// RFC 5869 appendices A.1 and A.3.
  @Test func hkdf() {
    let secret = KeyMaterial([UInt8](repeating: 0x0B, count: 22))
    let first = hex(
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    let (salt, info) = (hex("000102030405060708090a0b0c"), hex("f0f1f2f3f4f5f6f7f8f9"))
    #expect(KeyedHash.hkdfSHA256(secret: secret, salt: salt, info: info, count: 42).bytes == first)
    #expect(HostIdentitySuite.rsa.derive(secret: secret, salt: salt, info: info, count: 42).bytes == first)
    let third = hex(
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
    #expect(KeyedHash.hkdfSHA256(secret: secret, salt: [], info: [], count: 42).bytes == third)
  }

  /// RFC 4231 §4.2, §4.3.
  @Test func hmac() {
    let (first, second) = (KeyMaterial([UInt8](repeating: 0x0B, count: 20)), KeyMaterial(Array("Jefe".utf8)))
    let (hi, question) = (Array("Hi There".utf8), Array("what do ya want for nothing?".utf8))
    #expect(
      HostIdentitySuite.ecdsa.mac(hi, key: first)
        == hex(
          "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"))
    #expect(
      HostIdentitySuite.ecdsa.mac(question, key: second)
        == hex(
          "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"))
    let sha256 = hex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
    #expect(KeyedHash.hmacSHA256(hi, key: first) == sha256)
    #expect(HostIdentitySuite.rsa.mac(hi, key: first) == sha256)
  }

  /// NIST's samples of cSHAKE128, 1 and 2.
  @Test func cSHAKE() {
    let name = Array("Email Signature".utf8)
    #expect(
      KeyedHash.cSHAKE128([0, 1, 2, 3], customization: name, count: 32)
        == hex("C1C36925B6409A04F1B504FCBCA9D82B4017277CB5ED2B2065FC1D3814D5AAF5"))
    #expect(
      KeyedHash.cSHAKE128(Array(0...0xC7), customization: name, count: 32)
        == hex("C5221D50E4F822D96A2E8881A961420F294B7B24FE3D2094BAED2C6524CC166B"))
    // FIPS 202's SHAKE128 of nothing.
    #expect(HostIdentitySuite.edDSA.hash([]) == hex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"))
  }

  /// NIST's samples of KMAC128, 1 to 3.
  @Test func kmac() {
    let key = KeyMaterial(Array(0x40...0x5F))
    let name = Array("My Tagged Application".utf8)
    #expect(
      HostIdentitySuite.edDSA.mac([0, 1, 2, 3], key: key)
        == hex("E5780B0D3EA6F7D3A429C5706AA43A00FADBD7D49628839E3187243F456EE14E"))
    #expect(
      KeyedHash.kmac128([0, 1, 2, 3], key: key, customization: name, count: 32)
        == hex("3B1FBA963CD8B0B59E8C1A6D71888B7143651AF8BA0A7070C0979E2811324AA5"))
    #expect(
      KeyedHash.kmac128(Array(0...0xC7), key: key, customization: name, count: 32)
        == hex("1F5B4E6CCA02209E0DCB5CA635B89A15E271ECC760071DFD805FAA38F9729230"))
  }

  /// SP 800-56C's one step is one KMAC of the counter, the secret and the rest.
  @Test func oneStepDerivation() {
    let (secret, info): ([UInt8], [UInt8]) = ([9, 8, 7], [6, 5])
    func kmac(_ salt: [UInt8]) -> [UInt8] {
      KeyedHash.kmac128(
        [0, 0, 0, 1] + secret + info, key: KeyMaterial(salt), customization: Array("KDF".utf8), count: 2048)
    }
    let salt = Array(UInt8(0)..<64)
    let derive = { (salt: [UInt8]) in
      HostIdentitySuite.edDSA.derive(secret: KeyMaterial(secret), salt: salt, info: info, count: 2048).bytes
    }
    #expect(derive(salt) == kmac(salt))
    // `openssl kdf ... SSKDF`, first and last bytes of 2048.
    #expect(derive(salt).prefix(16) == hex("6a5d59b3e97023f9c7028f7ab0b3c0c4")[...])
    #expect(derive(salt).suffix(16) == hex("1fead1e8d1d2ceb828746626e155f3e6")[...])
    #expect(derive([]) == kmac([UInt8](repeating: 0, count: 164)))
  }

  /// The tags of RFC 9886 appendix A, which are cSHAKE128 of their own first half and the key.
  @Test(arguments: [
    ("2001:3f:fe00:5:5e60:a157:1e91:a0b7", "9990d5b04b72a18066d4092b52c7d4994fb7c16bd7e8c1f440ffa8d04ff1e13f"),
    ("2001:3f:fe00:a05:6615:ee45:d427:9a0", "ce681e36e1141aeb560d6e76bc796b7b7cb454e463ccb1f12de30a380101803f"),
    ("2001:3f:fe00:a05:1308:2469:9a4b:c6b2", "c92e2f9d97e8960f9b5f1654f8b09039f9dadc5bcf061eac4f0cea79e8e877fa"),
    ("2001:3f:fe00:a05:260e:d437:6b25:6e28", "8233fdaeb5068bc14859d113a0edfcf8dc07814e3dd2765e6b5b82e04d070597"),
  ])
  func publishedTags(text: String, key: String) throws {
    // Drones have a prefix of their own beside that of HIP.
    let tag = try #require(IPAddress(text))
    let context = hex("00B5A69C795DF5D5F0087F56843F2C40")
    let hash = KeyedHash.cSHAKE128(number(tag.high) + hex(key), customization: context, count: 8)
    #expect(hash == number(tag.low))
  }

  /// RFC 6979 appendix A.2.5, SHA-384.
  @Test func deterministicECDSA() throws {
    let identity = HostIdentity(
      p256Scalar: hex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"), deterministic: true)
    #expect(
      identity.publicIdentity.hostIdentity
        == [0, 1, 4]
        + hex("60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6")
        + hex("7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"))
    let sample = hex(
      """
      0EAFEA039B20E9B42309FB1D89E213057CBF973DC0CFC8F129EDDDC800EF7719
      4861F0491E6998B9455193E34E7B0D284DDD7149A74B95B9261F13ABDE940954
      """)
    let test = hex(
      """
      83910E8B48BB0C74244EBDF7F07A1C5413D61472BD941EF3920E623FBCCEBEB6
      8DDBEC54CF8CD5874883841D712142A56A8D0F218F5003CB0296B6B509619F2C
      """)
    #expect(identity.sign(Array("sample".utf8)) == sample)
    #expect(identity.sign(Array("test".utf8)) == test)
    #expect(identity.publicIdentity.isValid(signature: test, over: Array("test".utf8)))
    #expect(!identity.publicIdentity.isValid(signature: test, over: Array("sample".utf8)))
  }

  /// RFC 8032 §7.1, tests 1 and 2.
  @Test(arguments: [
    (
      "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
      """
      e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b
      d25bf5f0595bbe24655141438e7a100b
      """
    ),
    (
      "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
      "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
      """
      92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c
      387b2eaeb4302aeeb00d291612bb0c00
      """
    ),
  ])
  func ed25519(seed: String, key: String, message: String, signature: String) {
    let identity = HostIdentity(ed25519Seed: hex(seed))
    #expect(identity.publicIdentity.hostIdentity == [0, 1, 0, 0] + hex(key))
    #expect(identity.sign(hex(message)) == hex(signature))
    #expect(identity.publicIdentity.isValid(signature: hex(signature), over: hex(message)))
  }

  /// RFC 7748 §5.2, first vector, and §6.1.
  @Test(arguments: [
    (
      "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
      "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    ),
    (
      "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
      "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
      "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    ),
  ])
  func x25519(scalar: String, value: String, secret: String) throws {
    let key = try #require(DiffieHellmanKey(group: .x25519, scalar: KeyMaterial(hex(scalar))))
    #expect(key.agree(with: hex(value))?.bytes == hex(secret))
  }

  /// RFC 5903 §8.1 and §8.2.
  @Test(
    arguments: [
      (
        DiffieHellmanGroup.p256, "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
        """
        DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180
        5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3
        """,
        """
        D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63
        56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB
        """, "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE"
      ),
      (
        .p384,
        "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194", nil,
        """
        E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571
        DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C
        """, "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746"
      ),
    ] as [(DiffieHellmanGroup, String, String?, String, String)])
  func diffieHellman(group: DiffieHellmanGroup, scalar: String, own: String?, peer: String, secret: String) throws {
    let key = try #require(DiffieHellmanKey(group: group, scalar: KeyMaterial(hex(scalar))))
    if let own { #expect(key.publicValue == hex(own)) }
    #expect(key.agree(with: hex(peer))?.bytes == hex(secret))
  }

  @Test func comparisonIsOfAllBytes() {
    #expect(isEqualInConstantTime([], []) && isEqualInConstantTime([1, 2], [1, 2]))
    #expect(!isEqualInConstantTime([1, 2], [1, 3]) && !isEqualInConstantTime([1], [1, 2]))
  }
}
