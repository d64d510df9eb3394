import PacketIO
import Testing

/// Figures of a transport that is made of others.
@Suite struct TransportCounterTests {
  @Test func aSumStaysALoss() {
    let udp =
      [TransportCounter(name: "sent", value: 1)]
      + [TransportCounter(name: "send-queue-full", value: 2), TransportCounter(name: "too-short", value: 0)]
      .marking(["send-queue-full"], as: .notSent)
    let tcp = [TransportCounter(name: "send-queue-full", value: 75), TransportCounter(name: "too-short", value: 3)]
      .marking(["too-short"], as: .notPassedOn)
    #expect(
      udp.adding(tcp).adding([TransportCounter(name: "streams", value: 4)]) == [
        TransportCounter(name: "sent", value: 1), TransportCounter(name: "send-queue-full", value: 77, loss: .notSent),
        TransportCounter(name: "too-short", value: 3, loss: .notPassedOn), TransportCounter(name: "streams", value: 4),
      ])
  }
}
