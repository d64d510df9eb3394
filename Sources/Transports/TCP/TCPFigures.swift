import PacketIO

/// What a link of the TCP transport counts. Packets that were handed over to be sent are sent, or counted by one of the
/// reasons for which they were not.
struct TCPFigures: BitwiseCopyable {
  var sends: UInt64 = 0
  var sentTrains: UInt64 = 0
  var sentDatagrams: UInt64 = 0
  /// Not sent, by reason: the queue was full, the stream is gone, is not open at the moment, was lost meanwhile, or
  /// there are too many destinations.
  var sendQueueFull: UInt64 = 0
  var sendGone: UInt64 = 0
  var sendWaiting: UInt64 = 0
  var sendLost: UInt64 = 0
  var sendTooMany: UInt64 = 0

  var receivedReads: UInt64 = 0
  var receivedTrains: UInt64 = 0
  var receivedDatagrams: UInt64 = 0
  /// Records in pieces that did not fit in front of a read.
  var assembled: UInt64 = 0
  /// Records that are no sealed packets.
  var keepAlives: UInt64 = 0
  var messagesIgnored: UInt64 = 0
  var tooShort: UInt64 = 0
  /// Messages, which are counted among no packets.
  var messagesSent: UInt64 = 0
  var messagesFailed: UInt64 = 0
  var messagesReceived: UInt64 = 0

  var dialled: UInt64 = 0
  var opened: UInt64 = 0
  var accepted: UInt64 = 0
  var ended: UInt64 = 0
  /// Streams that were refused or ended, by reason.
  var refused: UInt64 = 0
  var refusedOfAddress: UInt64 = 0
  var evicted: UInt64 = 0
  var evictedOfPeer: UInt64 = 0
  var unidentified: UInt64 = 0
  var badPrefix: UInt64 = 0
  var badLength: UInt64 = 0
  var noRoom: UInt64 = 0
  var acceptErrors: UInt64 = 0

  func counters(streams: Int, unauthenticated: Int, destinations: Int) -> [TransportCounter] {
    let figures: [(String, UInt64)] = [
      ("streams", UInt64(streams)), ("streams-unidentified", UInt64(unauthenticated)),
      ("destinations", UInt64(destinations)),
      ("sends", sends), ("sent-trains", sentTrains), ("sent-datagrams", sentDatagrams),
      ("received-reads", receivedReads), ("received-trains", receivedTrains),
      ("received-datagrams", receivedDatagrams), ("records-assembled", assembled),
      ("keep-alives-received", keepAlives), ("messages-sent", messagesSent),
      ("messages-failed", messagesFailed), ("messages-received", messagesReceived),
      ("key-exchange-ignored", messagesIgnored), ("too-short", tooShort),
      ("send-queue-full", sendQueueFull), ("send-error-stream-gone", sendGone),
      ("send-error-not-connected", sendWaiting), ("send-error-stream-lost", sendLost),
      ("send-error-too-many-destinations", sendTooMany),
      ("streams-dialled", dialled), ("streams-opened", opened), ("streams-accepted", accepted),
      ("streams-ended", ended), ("refused-too-many", refused), ("refused-too-many-of-address", refusedOfAddress),
      ("ended-evicted", evicted), ("ended-too-many-of-peer", evictedOfPeer), ("ended-unidentified", unidentified),
      ("ended-bad-prefix", badPrefix),
      ("ended-bad-length", badLength), ("ended-no-room", noRoom), ("accept-errors", acceptErrors),
    ]
    return figures.map { TransportCounter(name: $0.0, value: $0.1) }
      .marking(
        [
          "send-queue-full", "send-error-stream-gone", "send-error-not-connected", "send-error-stream-lost",
          "send-error-too-many-destinations",
        ], as: .notSent
      )
      .marking(["too-short"], as: .notPassedOn)
  }
}
