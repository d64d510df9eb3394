/// Sequence numbers that were used under keys no longer in force, so that a key which returns goes on from there: the
/// sender repeats no nonce (invariant 1), and the receiver accepts nothing twice.
///
/// An entry of some hundred bytes for each key that was ever taken out of force. It is the one table without a
/// limit, because to forget a key here would be to repeat its nonces; no packet can add to it, only `apply`.
struct SequenceMemory {
  /// A key protects a packet together with the SPI: under another SPI, an old packet is not authentic.
  private struct Receiver: Hashable {
    let key: KeyFingerprint
    let spi: UInt32
  }

  private var next: [KeyFingerprint: UInt64] = [:]
  private var highest: [Receiver: UInt64] = [:]

  mutating func leave(_ association: borrowing OutboundAssociation) {
    next[association.fingerprint] = association.next
  }

  mutating func leave(_ association: borrowing InboundAssociation) {
    highest[Receiver(key: association.fingerprint, spi: association.configuration.spi)] = association.window.highest
  }

  /// Lets a new association go on where its key stopped.
  mutating func enter(_ association: inout OutboundAssociation) {
    if let next = next.removeValue(forKey: association.fingerprint) { association.resume(from: next) }
  }

  mutating func enter(_ association: inout InboundAssociation) {
    let receiver = Receiver(key: association.fingerprint, spi: association.configuration.spi)
    if let highest = highest.removeValue(forKey: receiver) { association.resume(after: highest) }
  }
}
