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

  /// Whether it is another than those that came before, and not one too many.
  func isNews(_ packet: HIPPacket) -> Bool {
    seen.count < R1Queue.capacity && !seen.contains(R1Queue.puzzle(packet))
  }

  /// Its signature is good.
  mutating func note(_ packet: HIPPacket) { seen.append(R1Queue.puzzle(packet)) }

  private static func puzzle(_ packet: HIPPacket) -> [UInt8] { packet.content(.puzzle).map { Array($0) } ?? [] }

  /// Where an R1 is answered. Whoever answers from elsewhere is answered where it was asked, so that nobody has this side
  /// send to others; where there are several such places, at another one each time.
  func place(for source: Path, among asked: [Path]) -> Path? {
    if asked.contains(source) { return source }
    let family = source.endpoint.address.family
    let alike = asked.filter { $0.transport == source.transport && $0.endpoint.address.family == family }
    return alike.isEmpty ? nil : alike[seen.count % alike.count]
  }

  mutating func add(_ packet: HIPPacket, along path: Path) { waiting.append((packet, path)) }

  mutating func next() -> (packet: HIPPacket, path: Path)? { waiting.isEmpty ? nil : waiting.removeFirst() }

  /// Whether there is time for a piece of work.
  mutating func mayWork(_ now: MonotonicTime) -> Bool { work.takeOne(now: now) }
}
