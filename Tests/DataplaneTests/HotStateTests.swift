import PacketIO
import Testing

@testable import Dataplane

/// What one packet touches of its peer lies on few cache lines: with many peers, each line is the memory's time.
@Suite struct HotStateTests {
  private static let line = 64

  @Test func rowsAndPlacesLieOnOneLineEach() {
    #expect(MemoryLayout<PeerRows.Row>.stride == HotStateTests.line)
    #expect(HotStateTests.line % MemoryLayout<AssociationTable.Entry?>.stride == 0)
    #expect(MemoryLayout<Flow>.stride == 2 * HotStateTests.line)
  }

  /// Beside the key eight lines at most: the row, peer and association, inbound also the SPI's place and a word of the
  /// replay window.
  @Test func aPacketTouchesFewLines() {
    let peer = Peer.hotBytes / HotStateTests.line
    #expect(1 + peer + OutboundAssociation.hotBytes / HotStateTests.line <= 8)
    #expect(1 + 1 + 1 + peer + InboundAssociation.hotBytes / HotStateTests.line <= 8)
  }

  /// The last of what every packet needs is within the bytes that are fetched ahead.
  @Test func whatIsNeededIsFetched() {
    let key = KeyMaterial([UInt8](repeating: 7, count: 20))
    let configuration = SecurityAssociationConfiguration(spi: 0x1000, cipher: .aes128GCM, key: key)
    func aead() -> AEAD { AEAD(.aes128GCM, key: key, engine: CipherEngine.available[0]) }
    let sending = StateCell(OutboundAssociation(configuration, aead: aead()))
    let receiving = StateCell(InboundAssociation(configuration, aead: aead()))
    let peer = StateCell(Peer(paths: [], now: .seconds(1)))
    let end = address(&sending.reference.value.bytes) + 8 - address(&sending.reference.value)
    #expect(end <= OutboundAssociation.hotBytes, "\(end)")
    let inboundEnd = address(&receiving.reference.value.bytes) + 8 - address(&receiving.reference.value)
    #expect(inboundEnd <= InboundAssociation.hotBytes, "\(inboundEnd)")
    for end in [
      address(&peer.reference.value.received) + MemoryLayout<TrafficCount>.size - address(&peer.reference.value),
      address(&peer.reference.value.lastHeard) + MemoryLayout<MonotonicTime?>.size - address(&peer.reference.value),
    ] { #expect(end <= Peer.hotBytes, "\(end)") }
    #expect(address(&peer.reference.value) % HotStateTests.line == 0)
  }

  private func address<T: ~Copyable>(_ value: inout T) -> Int {
    withUnsafePointer(to: &value) { Int(bitPattern: UnsafeRawPointer($0)) }
  }
}
