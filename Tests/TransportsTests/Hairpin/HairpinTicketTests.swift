import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Transports

@Suite struct HairpinTicketTests {
  private static func full(_ sample: inout HairpinSample) -> SignedHairpinTicket {
    sample.ticket { ticket in
      ticket.proxy = "relay-1"
      ticket.lifetime = 3600
      ticket.idle = 300
      ticket.bandwidth = 100_000_000
      ticket.burst = 65536
      ticket.byteLimit = 1 << 40
      ticket.priority = 7
      ticket.first.encapsulations = [.udp]
      ticket.windows = [.init(start: 28800, end: 64800), .init(start: 79200, end: 3600)]
    }
  }

  @Test func readsBackWhatWasWritten() throws {
    var sample = HairpinSample()
    let signed = Self.full(&sample)
    let read = try #require(SignedHairpinTicket(signed.bytes))
    #expect(read == signed && read.ticket == signed.ticket)
    #expect(read.isSigned(by: sample.authority.publicKey))
    #expect(!read.isSigned(by: sample.keys[0].publicKey))
  }

  /// Any one bit, and the ticket cannot be read or is not signed.
  @Test func everyBitIsCovered() {
    var sample = HairpinSample()
    let signed = Self.full(&sample)
    for bit in 0..<signed.bytes.count * 8 {
      var bytes = signed.bytes
      bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      let isGenuine = SignedHairpinTicket(bytes)?.isSigned(by: sample.authority.publicKey) ?? false
      #expect(!isGenuine, "bit \(bit)")
    }
    for count in 0..<signed.bytes.count { #expect(SignedHairpinTicket(Array(signed.bytes.prefix(count))) == nil) }
    #expect(SignedHairpinTicket(signed.bytes + [0]) == nil)
  }

  @Test func refusesValuesThatNoTicketCanHave() {
    var sample = HairpinSample()
    let good = Self.full(&sample).ticket
    let faults: [(inout HairpinTicket) -> Void] = [
      { $0.first.name = "" }, { $0.first.name = "o slo" }, { $0.second.name = "oslo" },
      { $0.second.key = $0.first.key }, { $0.first.encapsulations = [] }, { $0.notAfter = $0.notBefore - 1 },
      { $0.priority = 8 }, { $0.windows[0].end = 86401 }, { $0.windows[0].start = 86400 },
      { $0.windows[0].end = $0.windows[0].start }, { $0.windows += $0.windows + $0.windows },
      { $0.proxy = String(repeating: "x", count: 65) }, { $0.first.name = String(repeating: "x", count: 65) },
    ]
    for (number, change) in faults.enumerated() {
      var bad = good
      change(&bad)
      #expect(throws: HairpinTicketError.self, "\(number)") {
        try SignedHairpinTicket(signing: bad, with: sample.authority)
      }
    }
  }

  @Test func windowsAreRightToTheSecond() {
    let day = HairpinTicket.Window(start: 28800, end: 64800)
    let night = HairpinTicket.Window(start: 79200, end: 3600)
    let edges: [Int64] = [2, 3600, 28800, 64800, 79200, 86400, 176_400]
    for edge in edges {
      for second in (edge - 2)...(edge + 2) {
        let time = HairpinSample.noon - 43200 + second
        let ofDay = second % 86400
        #expect(day.contains(time) == (ofDay >= 28800 && ofDay < 64800))
        #expect(night.contains(time) == (ofDay >= 79200 || ofDay < 3600))
      }
    }
    let whole = HairpinTicket.Window(start: 0, end: 86400)
    #expect([0, 1, 43200, 86399].allSatisfy { whole.contains($0) })
  }

  @Test func filesReadBackAndTellWhatIsWrong() throws {
    var sample = HairpinSample()
    let proxy = try #require(Endpoint("[2001:db8::9]:4501", defaultPort: 1))
    let file = sample.file(Self.full(&sample), .second, proxy: proxy)
    let read = try HairpinTicketFile(text: file.text)
    #expect(read.text == file.text && read.proxy == proxy && read.end == .second && read.ticket == file.ticket)
    #expect(
      read.path(.udp, transport: 2).tag != read.path(.tcp, transport: 2).tag
        && read.path(.udp, transport: 2).transport == 2)
    let bad = [
      "", "side: 1", file.text.replacing("side: 2", with: "side: 1"), file.text.replacing("side: 2", with: "side: 3"),
      file.text + "side: 2\n", file.text + "more: 1\n", file.text.replacing("key: ", with: "key: A"),
      file.text.replacing("proxy: ", with: "proxy: x"), file.text.replacing("ticket: Q", with: "ticket: R"),
    ]
    for text in bad { #expect(throws: HairpinTicketFile.Problem.self, "\(text)") { try HairpinTicketFile(text: text) } }
  }

  @Test func base64AgreesWithItself() {
    var random = SeededNumbers(seed: 3)
    for count in 0..<70 {
      let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
      #expect(Base64.decode(Base64.encode(bytes)) == bytes)
    }
    // RFC 4648 §10.
    #expect(
      ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map { Base64.encode(Array($0.utf8)) } == [
        "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
      ])
    for text in ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "Z===", "====", "Zm 9v", "Zm9v\n"] {
      #expect(Base64.decode(text) == nil, "\(text)")
    }
  }

  /// RFC 8032 §7.1, test 2.
  @Test func signaturesAreTheStandards() throws {
    let seed: [UInt8] = [
      0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b, 0x8a, 0x31,
      0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
    ]
    let key = try #require(HairpinPrivateKey(seed: seed))
    #expect(key.publicKey.bytes.prefix(4) == [0x3d, 0x40, 0x17, 0xc3])
    let signature = try #require(key.sign([0x72]))
    #expect(signature.prefix(4) == [0x92, 0xa0, 0x09, 0xa9])
    #expect(key.publicKey.verifies(signature, of: [0x72]) && !key.publicKey.verifies(signature, of: [0x73]))
  }

  @Test func aRunOfImpossibleSizeIsNoMessage() {
    let good: [(UInt64, UInt64)] = [(6, 1), (1442 * 44, 44), (HairpinMessage.longestRun, 12_000), (65_535, 1)]
    for (bytes, packets) in good {
      let run = HairpinMessage.run(bytes: bytes, packets: packets)
      #expect(HairpinMessage(run.encoded) == run && run.encoded.count == HairpinMessage.runLength)
    }
    let bad: [(UInt64, UInt64)] = [
      (0, 0), (5, 1), (100, 0), (11, 2), (65_536, 1), (HairpinMessage.longestRun + 1, 12_000), (.max, .max),
    ]
    for (bytes, packets) in bad {
      #expect(HairpinMessage(HairpinMessage.run(bytes: bytes, packets: packets).encoded) == nil)
    }
  }
}
