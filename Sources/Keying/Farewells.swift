import Identity
import PacketIO

/// CLOSEs that nobody has acknowledged (RFC 7401 §5.3.7). Each is sent once more: the first may be lost, and no other
/// packet will follow, because keys are gone by then.
struct Farewells {
  /// Nanoseconds between the two.
  private static let repetition: UInt64 = 500_000_000

  struct Farewell {
    let packet: [UInt8]
    let path: Path
    let at: MonotonicTime
    /// What the acknowledgment has to echo.
    let echo: [UInt8]
    let peer: PublicHostIdentity

    init(_ packet: [UInt8], along path: Path, echo: [UInt8], to peer: PublicHostIdentity, now: MonotonicTime) {
      (self.packet, self.path, self.echo, self.peer) = (packet, path, echo, peer)
      at = now.adding(nanoseconds: Farewells.repetition)
    }
  }

  private var open: [Responder.Pair: Farewell] = [:]
  /// As they fall due. The one at `head` is open; of those behind it some may not be any more.
  private var order: [(at: MonotonicTime, pair: Responder.Pair)] = []
  private var head = 0

  var isEmpty: Bool { open.isEmpty }
  var deadline: MonotonicTime? { head < order.count ? order[head].at : nil }

  mutating func add(_ farewell: Farewell, _ pair: Responder.Pair) {
    open[pair] = farewell
    order.append((farewell.at, pair))
    skipOver()
  }

  /// A CLOSE_ACK came. Keys of its MAC are gone; the echo was in one packet only, and the signature is the partner's.
  mutating func takeAcknowledgment(_ packet: HIPPacket, _ pair: Responder.Pair) {
    guard let farewell = open[pair], packet.content(.echoResponseSigned).map({ Array($0) }) == farewell.echo,
      packet.hasValidSignature(by: farewell.peer)
    else { return }
    open[pair] = nil
    skipOver()
  }

  /// Those that are to be sent again, which ends it.
  mutating func takeDue(_ now: MonotonicTime) -> [Farewell] {
    var due: [Farewell] = []
    while head < order.count, order[head].at <= now {
      if let farewell = open.removeValue(forKey: order[head].pair) { due.append(farewell) }
      skipOver()
    }
    return due
  }

  private mutating func skipOver() {
    while head < order.count, open[order[head].pair]?.at != order[head].at { head += 1 }
    if head == order.count { (order, head) = ([], 0) }
  }
}
