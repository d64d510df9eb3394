import Host
import PacketIO
import Relay
import Synchronization

/// Says why tickets were refused, as `LogLimit` lets it. The proxy's thread only hands over what is to be said: who reads
/// the log does not hold it up.
final class RefusalLog: Sendable {
  private let limit = Mutex(LogLimit<HairpinRefusal>(now: .current()))
  private let lines: AsyncStream<String>
  private let continuation: AsyncStream<String>.Continuation

  init() {
    (lines, continuation) = AsyncStream.makeStream(of: String.self, bufferingPolicy: .bufferingNewest(128))
  }

  func note(_ refusal: HairpinRefusal) {
    // A ticket is one subject wherever it is presented; who has none is one by his address.
    let subject = refusal.ticket.map { "\($0.number)" } ?? "\(refusal.sender.address)"
    let isAdmitted = limit.withLock { $0.admit(refusal, about: subject, now: .current()) }
    if isAdmitted { continuation.yield("\(refusal)") }
  }

  /// Says what was put off, once there is room for it. Call it every second or so.
  func flush() {
    for (refusal, leftOut) in limit.withLock({ $0.due(now: .current()) }) {
      continuation.yield(leftOut > 0 ? "\(refusal) (and \(leftOut) times before)" : "\(refusal)")
    }
  }

  /// Says how many are not in the log at all. Call it every minute or so.
  func summarise() {
    let forgotten = limit.withLock { $0.takeForgotten() }
    if forgotten > 0 { continuation.yield("\(forgotten) more refusals were not logged") }
  }

  /// Writes lines as they come, until the task is cancelled.
  func write(_ say: (String) -> Void) async { for await line in lines { say(line) } }
}
