import Identity
import PacketIO

/// R1s of one attempt that are yet to be tried.
///
/// HIP_SIGNATURE_2 covers neither #I nor who is asked (RFC 7401 §5.2.15), so whoever has seen an R1 can make as many of
/// it as he likes that look like answers. Only the I2 shows which is the responder's: each that came is tried once, in
/// order, so that none of those keeps the real one away.
struct R1Queue {
  private var waiting: [(packet: HIPPacket, path: Path)] = []
  /// Puzzles of those that came.
  private var seen: [[UInt8]] = []
  /// Pieces of work on puzzles: a partner can sign any number of hard ones.
  private var work = TokenBucket(perSecond: 16, burst: 2048)

  /// Of one attempt; more are ignored.
  private static let capacity = 8

  /// Another attempt begins.
  mutating func restart() { (waiting, seen) = ([], []) }

  /// - Returns: whether it is another than those that came before.
  mutating func isNews(_ packet: HIPPacket) -> Bool {
    let puzzle = packet.content(.puzzle).map { Array($0) } ?? []
    guard seen.count < R1Queue.capacity, !seen.contains(puzzle) else { return false }
    seen.append(puzzle)
    return true
  }

  mutating func add(_ packet: HIPPacket, along path: Path) { waiting.append((packet, path)) }

  mutating func next() -> (packet: HIPPacket, path: Path)? { waiting.isEmpty ? nil : waiting.removeFirst() }

  /// Whether there is time for a piece of work.
  mutating func mayWork(_ now: MonotonicTime) -> Bool { work.takeOne(now: now) }
}
