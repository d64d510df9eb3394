import Dataplane
import Testing

/// A whole ESP packet, in hexadecimal: SPI, sequence number, IV, sealed payload, ICV; and what it was made of.
struct ESPVector: Sendable, CustomTestStringConvertible {
  let name: String
  let cipher: Cipher
  let spi: UInt32
  let sequence: UInt64
  let extended: Bool
  /// Key, then salt.
  let key: String
  /// Inner packet, padding, pad length, next header.
  let plain: String
  let packet: String

  var testDescription: String { name }

  /// draft-mcgrew-gcm-test-01 §4, all but case 7, whose key has 192 bits.
  static let draftMcGrew: [ESPVector] = [
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 1", cipher: .aes128GCM,
      spi: 0x0000_4321, sequence: 0x8765_4321_0000_0000, extended: true,
      key: "4c80cdefbb5d10da906ac73c3613a6342e443b68",
      plain: """
        45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f7564700373
        69700963796265726369747902646b000021000101020201
        """,
      packet: """
        00004321000000004956ed7e3b244cfefecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34
        cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe72
        2fd04796562dfdb4
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 2", cipher: .aes128GCM,
      spi: 0x0000_a5f8, sequence: 0x0000_000a, extended: false,
      key: "feffe9928665731c6d6a8f9467308308cafebabe",
      plain: """
        4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962
        65726369747902646b00000100010001
        """,
      packet: """
        0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c
        3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4c309e9d85a41ad4a
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 3", cipher: .aes256GCM,
      spi: 0x4a2c_bfe3, sequence: 0x0000_0002, extended: false,
      key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab11223344",
      plain: """
        4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b401010402
        01020201
        """,
      packet: """
        4a2cbfe3000000020102030405060708ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763
        748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c4915956c96
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 4", cipher: .aes128GCM,
      spi: 0x0000_0000, sequence: 0x0000_0001, extended: false,
      key: "0000000000000000000000000000000000000000",
      plain: """
        4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f7071727374
        75767761626364656667686901020201
        """,
      packet: """
        000000000000000100000000000000004688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284
        456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3f821d496eeb096e98ad2b69e4799c71d
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 5", cipher: .aes128GCM,
      spi: 0x42f6_7e3f, sequence: 0x1010_1010_1010_1010, extended: true,
      key: "3de09874b388e6491988d0c3607eae1f57690e43",
      plain: """
        4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c6d6e6f7071727374
        75767761626364656667686901020201
        """,
      packet: """
        42f67e3f101010104e280000a2fca1a3fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c357917
        65acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320ae0d731cc978ecafaeae88f00e80d6e48
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 6", cipher: .aes128GCM,
      spi: 0x42f6_7e3f, sequence: 0x1010_1010_1010_1010, extended: true,
      key: "3de09874b388e6491988d0c3607eae1f57690e43",
      plain: "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
      packet: """
        42f67e3f101010104e280000a2fca1a3fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed369f071f
        35e034be95f112e4e7d05d35
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 8", cipher: .aes128GCM,
      spi: 0x0000_0100, sequence: 0x0000_0000_0000_0001, extended: true,
      key: "abbccddef00112233445566778899aabdecaf888",
      plain: """
        4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18d75b81dc91baa047
        6b91b924b280389d92c963bac046ec959b6266c04722b14923010101
        """,
      packet: """
        0000010000000001cafedebaceface7418a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f
        9190feebaf2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68651f57e6
        5f354f75ff17015769623436
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 9", cipher: .aes256GCM,
      spi: 0x1740_5e67, sequence: 0x156f_3126_dd0d_b99b, extended: true,
      key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab73616c74",
      plain: "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
      packet: """
        17405e67dd0db99b616e640169766563f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57f
        f4d3a31ce673119e451626c2415771e3b7eebca614c89b35
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 10", cipher: .aes128GCM,
      spi: 0x42f6_7e3f, sequence: 0x1010_1010_1010_1010, extended: true,
      key: "3de09874b388e6491988d0c3607eae1f57690e43",
      plain: """
        45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0001e8c18d65759d52284a035
        2c71475c8880391c764d6e5ee0496b325ae270c03899493915010101
        """,
      packet: """
        42f67e3f101010104e280000a2fca1a3fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d541828
        00cadb0f68d99ef0e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39ab533163aad4550ee5160975cdb608c5
        769189609763b8e18caa81e2
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 11", cipher: .aes256GCM,
      spi: 0x1740_5e67, sequence: 0x156f_3126_dd0d_b99b, extended: true,
      key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab73616c74",
      plain: """
        636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f6769657301746861
        7477696c6c01646566696e65746f6d6f72726f7701020201
        """,
      packet: """
        17405e67dd0db99b616e640169766563d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18
        d0a6df10e5487df074113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8c0cac587f249e56b
        11e24f30e44ccc76
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 12", cipher: .aes128GCM,
      spi: 0x3354_67ae, sequence: 0xffff_ffff, extended: false,
      key: "7d773d00c144c525ac619d18c84a3f47d9664267",
      plain: "01020201",
      packet: "335467aeffffffff43457e9182443bc6437f866bcb3f699fe9b0822bac961c4504bef270"),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 13", cipher: .aes128GCM,
      spi: 0x0000_0100, sequence: 0x0000_0000_0000_0001, extended: true,
      key: "abbccddef00112233445566778899aabdecaf888",
      plain: "746f016265016f72016e6f7401746f0162650001",
      packet: """
        0000010000000001cafedebaceface7429c9fc69a197d038ccdd14e2ddfcaa0543332164412503524303ed3c6c5f2838
        43af8c3e
        """),
    ESPVector(
      name: "draft-mcgrew-gcm-test-01 case 14", cipher: .aes256GCM,
      spi: 0x796b_6963, sequence: 0xffff_ffff_ffff_ffff, extended: true,
      key: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f726569617475726e",
      plain: """
        45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f7071727374
        01020201
        """,
      packet: """
        796b6963ffffffff333021696765746df97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a86
        4cd3d78ca4ae68a32b42458fb57dbe821dcc63b9d0937ba2945f669368661a329fb4c053
        """),
  ]

  static let rfc7634: [ESPVector] = [
    ESPVector(
      name: "RFC 7634 appendix A", cipher: .chacha20Poly1305,
      spi: 0x0102_0304, sequence: 0x0000_0005, extended: false,
      key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3",
      plain: """
        45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f10111213
        1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204
        """,
      packet: """
        0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
        14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da
        9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43
        """)
  ]
}
