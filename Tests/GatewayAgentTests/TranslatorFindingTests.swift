import PacketIO
import Testing

@testable import Gateway

/// What relays that see a gateway show of the translator before it.
@Suite struct TranslatorFindingTests {
  private static let own = Endpoint(address: IPAddress(v4: 0x0A01_0002), port: 4500)
  private static let own6 = Endpoint(address: IPAddress(v6High: 0x2001_0DB8_0000_0000, low: 1), port: 4500)

  private func seen(_ port: UInt16, by relay: UInt32) -> TranslatorFinding.Observation {
    .init(relay: IPAddress(v4: relay), seen: Endpoint(address: IPAddress(v4: 0xC000_0201), port: port))
  }

  private func kinds(_ observations: [TranslatorFinding.Observation]) -> [TranslatorFinding.Kind] {
    TranslatorFinding.all(of: observations, own: [Self.own, Self.own6]).map(\.kind)
  }

  @Test func kinds() {
    #expect(kinds([]) == [])
    #expect(kinds([.init(relay: IPAddress(v4: 1), seen: Self.own)]) == [.none])
    #expect(kinds([seen(4500, by: 1)]) == [.unknown])
    // Two ports of one relay's machine tell too little.
    #expect(kinds([seen(4500, by: 1), seen(4500, by: 1)]) == [.unknown])
    #expect(kinds([seen(4500, by: 1), seen(4500, by: 2)]) == [.endpointIndependent])
    #expect(kinds([seen(4500, by: 1), seen(4501, by: 2)]) == [.endpointDependent])
    #expect(kinds([seen(4500, by: 1), seen(4501, by: 1)]) == [.endpointDependent])
  }

  /// Each family for itself.
  @Test func families() {
    let both = [seen(7, by: 1), TranslatorFinding.Observation(relay: Self.own6.address, seen: Self.own6)]
    let found = TranslatorFinding.all(of: both, own: [Self.own, Self.own6])
    #expect(found.map(\.isV4) == [true, false] && found.map(\.kind) == [.unknown, .none])
    #expect(found.map(\.seenAs) == [[both[0].seen], [Self.own6]])
    #expect(found[0].text.hasPrefix("IPv4: behind an address translator") && found[0].text.hasSuffix(" 192.0.2.1:7"))
  }
}
