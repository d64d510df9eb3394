import Synchronization

/// A sequence number that a worker leaves behind with a key, for whoever has the key next.
final class SequenceMark: Sendable {
  let number = Atomic<UInt64>(0)
}

/// Sequence numbers that were used under keys no longer in force, so that a key which returns goes on from there: the
/// sender repeats no nonce (invariant 1), and the receiver accepts nothing twice.
///
/// Kept where changes are compiled. A worker writes a number when it lets a key go, and reads one when it gets a key
/// back: it finds the place in the change, and looks for nothing.
///
/// An entry of some hundred bytes for each key that was ever taken out of force. It is the one table without a
/// limit, because to forget a key here would be to repeat its nonces; no packet can add to it, only `apply`.
struct SequenceMemory: Sendable {
  /// A key protects a packet together with the SPI: under another SPI, an old packet is not authentic.
  private struct Receiver: Hashable {
    let key: KeyFingerprint
    let spi: UInt32
  }

  private var sent: [KeyFingerprint: SequenceMark] = [:]
  private var received: [Receiver: SequenceMark] = [:]
  /// Where there are several workers: which has ever sealed under a key.
  private var sealers: [KeyFingerprint: Int] = [:]

  func worker(sealing key: KeyFingerprint) -> Int? { sealers[key] }
  mutating func note(sealing key: KeyFingerprint, worker: Int) { sealers[key] = worker }

  /// Where the next number of an outbound key that goes is to be left.
  mutating func leave(sending key: KeyFingerprint) -> SequenceMark {
    let mark = sent[key] ?? SequenceMark()
    sent[key] = mark
    return mark
  }

  /// Where the highest number accepted under an inbound key that goes is to be left.
  mutating func leave(receiving key: KeyFingerprint, spi: UInt32) -> SequenceMark {
    let receiver = Receiver(key: key, spi: spi)
    let mark = received[receiver] ?? SequenceMark()
    received[receiver] = mark
    return mark
  }

  /// Where a key that is new, or returns, stopped; nil: it was never there.
  func mark(sending key: KeyFingerprint) -> SequenceMark? { sent[key] }
  func mark(receiving key: KeyFingerprint, spi: UInt32) -> SequenceMark? { received[Receiver(key: key, spi: spi)] }
}
