import PacketIO
import Testing

@testable import Dataplane

/// What leaves is ESP as RFC 4303 §2 has it, and all that is ESP is accepted, also where it differs from what we
/// would have sent.
@Suite struct ESPFormatTests {
  /// Every kind of association, on every engine.
  struct Kind: CustomTestStringConvertible {
    var engine: CipherEngine
    var cipher: Cipher
    var extended: Bool
    var implicitIV: Bool
    var sites: Sites { Sites(cipher: cipher, extended: extended, implicitIV: implicitIV) }
    var testDescription: String {
      "\(engine.rawValue) \(cipher.rawValue)\(extended ? " extended" : "")\(implicitIV ? " implicit IV" : "")"
    }

    static let all: [Kind] = CipherEngine.available.flatMap { engine in
      Cipher.allCases.flatMap { cipher in
        [(true, false), (false, true), (true, true), (false, false)].map {
          Kind(engine: engine, cipher: cipher, extended: $0.0, implicitIV: $0.1)
        }
      }
    }
  }

  private static func packet(_ length: Int, isV4: Bool = true) -> PacketSketch {
    let addresses = isV4 ? ("10.1.0.1", "10.2.0.1") : ("fd00:1::1", "fd00:2::1")
    var numbers = SeededNumbers(seed: UInt64(length))
    return PacketSketch(addresses.0, addresses.1, .other(50), payload: numbers.bytes(length))
  }

  @Test(arguments: Kind.all)
  func aSealedPacketIsLaidOutByTheBook(kind: Kind) {
    let alpha = TestGateway(kind.sites.alphaConfiguration, sealing: .by(kind.engine))
    let esp = SlowESP(kind.sites)
    for index in 0..<40 {
      let sketch = Self.packet(index, isV4: index % 3 > 0)
      let datagrams = alpha.seal(sketch.bytes)
      #expect(datagrams.count == 1)
      guard let content = esp.open(datagrams[0]) else {
        Issue.record("packet \(index) does not open")
        continue
      }
      #expect(content.spi == Sites.alphaSPI)
      #expect(content.sequence == UInt32(index + 1))
      #expect(content.iv == UInt64(index + 1))
      #expect(content.payload == sketch.bytes)
      #expect(content.padding == Array([1, 2, 3].prefix(content.padding.count)))
      #expect((content.payload.count + content.padding.count + 2) % 4 == 0)
      #expect(content.nextHeader == (sketch.isV4 ? 4 : 41))
      #expect(datagrams[0].count == (kind.implicitIV ? 8 : 16) + content.payload.count + content.padding.count + 2 + 16)
    }
  }

  /// Traffic of all kinds through both ends, in whatever trains the path makes of it.
  @Test(arguments: Kind.all)
  func whatOneEndSealsTheOtherOpens(kind: Kind) {
    let alpha = TestGateway(kind.sites.alphaConfiguration, sealing: .by(kind.engine))
    let beta = TestGateway(kind.sites.betaConfiguration, sealing: .by(kind.engine))
    var traffic = Traffic(seed: 9, flows: 8)
    for round in 0..<6 {
      let items = (0..<8).map { _ in traffic.next() }
      let trains = alpha.seal(items.map(\.packet))
      let carried = round % 2 == 0 ? trains : .joining(trains.datagrams, limit: round)
      var oracle = DeliveryOracle(items.flatMap { $0.segments.map(\.bytes) })
      oracle.judge(beta.open(carried))
    }
    #expect(beta.drops == [:])
  }

  /// Every datagram of a train but the last has the train's size, and a train fits one send.
  @Test func trainsAreOfOneSize() {
    let alpha = Sites().alpha()
    var traffic = Traffic(seed: 3, flows: 8)
    for _ in 0..<20 {
      let items = (0..<8).map { _ in traffic.next() }
      let trains = alpha.seal(items.map(\.packet))
      for train in trains {
        #expect(train.bytes.count <= 65507 && train.datagrams.count <= 128)
        #expect(train.path == Sites().path)
        for datagram in train.datagrams { #expect(SlowESP(Sites()).open(datagram) != nil) }
      }
    }
  }

  /// Two peers' packets in turn: each peer's go in few trains, in order.
  @Test func aSuperpacketGoesOnInTheNextTrain() {
    let alpha = Sites().alpha()
    var numbers = SeededNumbers(seed: 4)
    let sketch = PacketSketch(
      "10.1.0.1", "10.2.0.1", .tcp(.init(sourcePort: 1, destinationPort: 2)), payload: numbers.bytes(65000))
    let trains = alpha.seal([TunPacket(sketch, segmentSize: 1348), TunPacket(sketch, segmentSize: 1348)])
    // 49 segments each, of which the last is shorter and so ends its train; 45 to a train otherwise.
    #expect(trains.map(\.datagrams.count) == [46, 3, 46, 3])
    let sequences = trains.datagrams.map { bigEndian($0[4..<8]) }
    #expect(sequences == Array(1...98))
  }

  // MARK: Padding

  @Test(arguments: [4, 7, 8, 100, 251, 255])
  func longerPaddingIsAccepted(count: Int) {
    let sites = Sites()
    let beta = sites.beta()
    let sketch = Self.packet(20)
    // 40 bytes of packet and the two of the trailer: padding of 2, 6, … ends on the boundary.
    let padding = (1...255).map { UInt8($0) }.prefix(count / 4 * 4 + 2 <= 255 ? count / 4 * 4 + 2 : 254)
    let sealed = SlowESP(sites).seal(sketch.bytes, sequence: 1, nextHeader: 4, padding: Array(padding))
    #expect(beta.open(sealed) == [sketch.bytes])
  }

  /// Traffic-flow padding behind the inner packet, which its own length sets apart (RFC 4303 §2.7).
  @Test(arguments: [true, false], [4, 400, 1200])
  func trafficFlowPaddingIsCutOff(isV4: Bool, count: Int) {
    let sites = Sites()
    let beta = sites.beta()
    let sketches = (0..<3).map { index in
      var sketch = PacketSketch(
        isV4 ? "10.1.0.1" : "fd00:1::1", isV4 ? "10.2.0.1" : "fd00:2::1",
        .tcp(.init(sourcePort: 1, destinationPort: 2, sequence: UInt32(index * 50))),
        payload: [UInt8](repeating: 7, count: 50))
      sketch.identification = UInt16(index)
      return sketch
    }
    var numbers = SeededNumbers(seed: 5)
    let datagrams = sketches.enumerated().map { index, sketch in
      SlowESP(sites).seal(
        sketch.bytes + numbers.bytes(count), sequence: UInt64(index + 1), nextHeader: isV4 ? 4 : 41)
    }
    let delivered = beta.open(.joining(datagrams))
    #expect(delivered.map(\.count) == [3])
    var oracle = DeliveryOracle(sketches.map(\.bytes))
    oracle.judge(delivered)
    #expect(beta.peer("alpha").value.received == TrafficCount(packets: 3, bytes: UInt64(3 * sketches[0].bytes.count)))
  }

  @Test func paddingThatIsNotOneTwoThreeIsRefused() {
    let sites = Sites()
    let sketch = Self.packet(20)
    let wrong: [[UInt8]] = [[0, 0], [1, 1], [2, 1], [1, 2, 3, 4, 5, 7], [0, 1, 2, 3, 4, 5]]
    for padding in wrong {
      let beta = sites.beta()
      let esp = SlowESP(sites)
      #expect(beta.open(esp.seal(sketch.bytes, sequence: 1, nextHeader: 4, padding: padding)) == [])
      #expect(beta.drops == [.badPadding: 1])
      // Authentic all the same: its number is used.
      #expect(beta.open(esp.seal(sketch.bytes, sequence: 1, nextHeader: 4)) == [])
      #expect(beta.drops == [.badPadding: 1, .replayed: 1])
    }
    // Longer than all that was sent.
    let beta = sites.beta()
    #expect(beta.open(SlowESP(sites).seal([], sequence: 1, nextHeader: 4, padding: [1, 2], padLength: 3)) == [])
    #expect(
      beta.open(SlowESP(sites).seal(sketch.bytes, sequence: 2, nextHeader: 4, padding: [1, 2], padLength: 255)) == [])
    #expect(beta.drops == [.badPadding: 2])
  }
}
