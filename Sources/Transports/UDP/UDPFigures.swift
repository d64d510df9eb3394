import Glibc
import PacketIO

/// What a link of the UDP transport counts. Packets that were handed over to be sent are sent, or counted by one of the
/// reasons for which they were not.
struct UDPFigures: BitwiseCopyable {
  /// What a send carries. Keep-alives and messages are no packets, and must not disturb the sum of sent and failed ones.
  enum Content: BitwiseCopyable { case packets, message, keepAlive }

  var sentTrains: UInt64 = 0
  var sentDatagrams: UInt64 = 0
  var receivedTrains: UInt64 = 0
  var receivedDatagrams: UInt64 = 0
  var keepAlivesSent: UInt64 = 0
  var keepAlivesFailed: UInt64 = 0
  var keepAlivesReceived: UInt64 = 0
  var messagesSent: UInt64 = 0
  var messagesFailed: UInt64 = 0
  var messagesReceived: UInt64 = 0
  var messagesIgnored: UInt64 = 0
  var tooShort: UInt64 = 0
  var truncated: UInt64 = 0
  var sendQueueFull: UInt64 = 0
  var receiveQueueFull: UInt64 = 0
  var noFamily: UInt64 = 0
  /// Messages of routers, or of whoever has made them up, that packets were too large.
  var sizeMessages: UInt64 = 0
  var sendErrors = ErrorCounts()
  var receiveErrors = ErrorCounts()

  mutating func countSent(_ content: Content, _ datagrams: Int) {
    switch content {
    case .keepAlive: keepAlivesSent &+= 1
    case .message: messagesSent &+= 1
    case .packets:
      sentTrains &+= 1
      sentDatagrams &+= UInt64(datagrams)
    }
  }

  mutating func countFailed(_ content: Content, _ datagrams: Int, _ error: Int32) {
    switch content {
    case .keepAlive: keepAlivesFailed &+= 1
    case .message: messagesFailed &+= 1
    case .packets:
      if error == EAFNOSUPPORT {
        noFamily &+= UInt64(datagrams)
      } else {
        sendErrors.count(error, UInt64(datagrams))
      }
    }
  }

  var counters: [TransportCounter] {
    let figures: [(String, UInt64)] = [
      ("sent-trains", sentTrains), ("sent-datagrams", sentDatagrams), ("received-trains", receivedTrains),
      ("received-datagrams", receivedDatagrams), ("keep-alives-sent", keepAlivesSent),
      ("keep-alives-failed", keepAlivesFailed), ("keep-alives-received", keepAlivesReceived),
      ("messages-sent", messagesSent), ("messages-failed", messagesFailed), ("messages-received", messagesReceived),
      ("key-exchange-ignored", messagesIgnored), ("too-short", tooShort), ("truncated", truncated),
      ("send-queue-full", sendQueueFull), ("receive-queue-full", receiveQueueFull), ("no-socket-of-family", noFamily),
      ("size-messages-received", sizeMessages),
    ]
    return figures.map { TransportCounter(name: $0.0, value: $0.1) }
      .marking(["send-queue-full", "no-socket-of-family"], as: .notSent)
      .marking(["truncated", "receive-queue-full", "too-short"], as: .notPassedOn)
      + sendErrors.counters(prefix: "send-error", loss: .notSent) + receiveErrors.counters(prefix: "receive-error")
  }
}
