import PacketIO
import Testing

@testable import Dataplane

@Suite struct AEADTests {
  /// Every published vector must hold in every engine that this machine has.
  static let engines = CipherEngine.available

  @Test(arguments: engines, ESPVector.draftMcGrew + ESPVector.rfc7634)
  func wholePacketsOfThePublishedVectors(engine: CipherEngine, vector: ESPVector) {
    let packet = hex(vector.packet)
    let iv = bigEndian(packet[8..<16])
    let data = AdditionalData(spi: vector.spi, sequence: vector.sequence, extended: vector.extended)
    #expect(data.count == (vector.extended ? 12 : 8))
    #expect(Array(data.bytes.prefix(4)) == Array(packet[0..<4]))
    #expect(Array(data.bytes.suffix(4)) == Array(packet[4..<8]))

    let aead = ArrayAEAD(vector.cipher, key: hex(vector.key), sealing: .by(engine))
    #expect(aead.seal(iv: iv, data, hex(vector.plain)) == Array(packet[16...]))
    #expect(aead.open(iv: iv, data, Array(packet[16...])) == hex(vector.plain))
  }

  @Test(arguments: engines, AEADVector.nist + AEADVector.rfc8439)
  func knownAnswers(engine: CipherEngine, vector: AEADVector) {
    let nonce = hex(vector.nonce)
    let iv = bigEndian(nonce[4...])
    let data = AdditionalData(hex(vector.data))
    #expect(data.bytes == hex(vector.data))
    let aead = ArrayAEAD(vector.cipher, key: hex(vector.key) + nonce[0..<4], sealing: .by(engine))
    if let plain = vector.plain { #expect(aead.seal(iv: iv, data, hex(plain)) == hex(vector.sealed)) }
    #expect(aead.open(iv: iv, data, hex(vector.sealed)) == vector.plain.map { hex($0) })
  }

  @Test(arguments: Cipher.allCases)
  func enginesAgree(cipher: Cipher) throws {
    try #require(Self.engines.last == .openSSL)
    var numbers = SeededNumbers(seed: 1)
    // All small sizes, where the engines have their special cases, then random ones.
    let sizes = Array(0...300) + (0..<300).map { _ in Int.random(in: 301...9000, using: &numbers) } + [65_000]
    for size in sizes {
      let key = numbers.bytes(cipher.keyMaterialLength)
      let plain = numbers.bytes(size)
      let iv = numbers.next()
      let data = AdditionalData(
        spi: UInt32.random(in: 256...UInt32.max, using: &numbers), sequence: numbers.next(),
        extended: Bool.random(using: &numbers))
      let offset = Int.random(in: 64...128, using: &numbers)
      let aeads = Self.engines.map { ArrayAEAD(cipher, key: key, sealing: .by($0), offset: offset) }
      let sealed = aeads.map { $0.seal(iv: iv, data, plain) }
      #expect(Set(sealed).count == 1, "engines differ at \(size) bytes")
      for aead in aeads { #expect(aead.open(iv: iv, data, sealed[0]) == plain, "\(size) bytes") }
    }
  }

  /// One value seals and opens many packets, in any order, and each comes out as from a fresh one.
  @Test(arguments: engines, Cipher.allCases)
  func aKeyIsReusable(engine: CipherEngine, cipher: Cipher) {
    var numbers = SeededNumbers(seed: 2)
    let key = numbers.bytes(cipher.keyMaterialLength)
    let aead = ArrayAEAD(cipher, key: key, sealing: .by(engine))
    for i in 0..<200 {
      let data = AdditionalData(spi: 0x1000, sequence: UInt64(i), extended: i % 3 == 0)
      let plain = numbers.bytes(Int.random(in: 0...200, using: &numbers))
      let sealed = ArrayAEAD(cipher, key: key, sealing: .by(engine)).seal(iv: UInt64(i), data, plain)
      if i % 5 == 0 { #expect(aead.open(iv: UInt64(i), data, sealed.reversed()) == nil) }
      if i % 2 == 0 { #expect(aead.seal(iv: UInt64(i), data, plain) == sealed) }
      #expect(aead.open(iv: UInt64(i), data, sealed) == plain)
    }
  }

  /// Every bit of the sealed bytes, of the additional data and of the IV counts.
  @Test(arguments: engines, Cipher.allCases)
  func flippedBitsAreRefused(engine: CipherEngine, cipher: Cipher) {
    var numbers = SeededNumbers(seed: 3)
    let aead = ArrayAEAD(cipher, key: numbers.bytes(cipher.keyMaterialLength), sealing: .by(engine))
    for size in [0, 1, 16, 61] {
      for extended in [false, true] {
        let plain = numbers.bytes(size)
        let iv = numbers.next()
        let data = AdditionalData(spi: 0x8000_0001, sequence: numbers.next(), extended: extended)
        let sealed = aead.seal(iv: iv, data, plain)
        for bit in 0..<sealed.count * 8 {
          var forged = sealed
          forged[bit / 8] ^= 1 << (bit % 8)
          #expect(aead.open(iv: iv, data, forged) == nil, "bit \(bit) of \(size) bytes")
        }
        for bit in 0..<data.count * 8 {
          var bytes = data.bytes
          bytes[bit / 8] ^= 1 << (bit % 8)
          #expect(aead.open(iv: iv, AdditionalData(bytes), sealed) == nil, "bit \(bit) of the additional data")
        }
        for bit in 0..<64 { #expect(aead.open(iv: iv ^ 1 << bit, data, sealed) == nil, "bit \(bit) of the IV") }
        #expect(aead.open(iv: iv, data, sealed) == plain)
      }
    }
  }

  @Test(arguments: engines, Cipher.allCases)
  func eachByteOfTheKeyMaterialCounts(engine: CipherEngine, cipher: Cipher) {
    var numbers = SeededNumbers(seed: 4)
    let key = numbers.bytes(cipher.keyMaterialLength)
    let data = AdditionalData(spi: 256, sequence: 1, extended: false)
    let sealed = ArrayAEAD(cipher, key: key, sealing: .by(engine)).seal(iv: 1, data, [1, 2, 3])
    for index in key.indices {
      var other = key
      other[index] ^= 1
      #expect(ArrayAEAD(cipher, key: other, sealing: .by(engine)).open(iv: 1, data, sealed) == nil, "byte \(index)")
    }
  }

  @Test(arguments: engines, Cipher.allCases)
  func shorterThanItsICVIsRefused(engine: CipherEngine, cipher: Cipher) {
    let aead = ArrayAEAD(cipher, key: Array(repeating: 7, count: cipher.keyMaterialLength), sealing: .by(engine))
    let data = AdditionalData(spi: 256, sequence: 1, extended: true)
    let sealed = aead.seal(iv: 1, data, [1, 2, 3])
    for count in 0..<sealed.count { #expect(aead.open(iv: 1, data, Array(sealed.prefix(count))) == nil) }
  }

  /// Values of different threads share the engine and nothing else.
  @Test(arguments: engines, Cipher.allCases)
  func threadsDoNotDisturbEachOther(engine: CipherEngine, cipher: Cipher) async {
    await withTaskGroup(of: Int.self) { group in
      for seed in UInt64(10)..<14 {
        group.addTask {
          var numbers = SeededNumbers(seed: seed)
          let aead = ArrayAEAD(cipher, key: numbers.bytes(cipher.keyMaterialLength), sealing: .by(engine))
          let plain = numbers.bytes(500)
          return (0..<500).count { i in
            let data = AdditionalData(spi: 256, sequence: UInt64(i), extended: true)
            return aead.open(iv: UInt64(i), data, aead.seal(iv: UInt64(i), data, plain)) == plain
          }
        }
      }
      for await good in group { #expect(good == 500) }
    }
  }
}

@Suite struct CipherEngineTests {
  @Test func openSSLIsAlwaysThereAndLast() {
    #expect(CipherEngine.available.last == .openSSL)
    for cipher in Cipher.allCases { #expect(CipherEngine.openSSL.supports(cipher)) }
    #expect(CipherEngine.multiBuffer.supports(.aes128GCM) == CipherEngine.available.contains(.multiBuffer))
  }

  /// The bound of the benchmark leaves the cryptography out. No name in a configuration leads there.
  @Test func configurationsCannotNameTheBound() {
    #expect(CipherEngine.allCases == [.multiBuffer, .openSSL])
    for name in ["none", "null", "left-out", "leftOut", ""] { #expect(CipherEngine(rawValue: name) == nil) }
    for cipher in Cipher.allCases { #expect(cipher.keyLength >= 16) }
  }

  @Test func theBoundCopiesAndBelieves() {
    let bound = ArrayAEAD(.aes128GCM, key: Array(repeating: 0, count: 20), sealing: .leftOut)
    let data = AdditionalData(spi: 256, sequence: 1, extended: true)
    #expect(bound.seal(iv: 1, data, [1, 2, 3]) == [1, 2, 3] + Array(repeating: 0, count: 16))
    #expect(bound.open(iv: 1, data, [1, 2, 3] + Array(repeating: 9, count: 16)) == [1, 2, 3])
    #expect(bound.open(iv: 1, data, [1, 2, 3]) == nil)
  }
}
