import Glibc
import PacketIO
import Synchronization
import Testing

@testable import Dataplane

/// The way from one worker to another: nothing is lost that was taken in, nothing changes places.
@Suite struct HandOffQueueTests {
  private static func handOff(_ number: Int) -> HandOff { .opened(peer: Int32(number), version: 7) }

  private static func number(_ handOff: HandOff) -> Int? {
    if case .opened(let peer, _) = handOff { Int(peer) } else { nil }
  }

  /// Against an array, in any order of posting, taking and leaving; it refuses only when there really is no room, or none
  /// for the one whose packet it is.
  @Test func behavesLikeAQueue() {
    var random = SeededNumbers(seed: 41)
    let pool = BufferPool(count: 1)
    let queue = HandOffQueue(capacity: 1 << 18)
    var waiting: [(number: Int, bytes: [UInt8], row: Int32)] = []
    var number = 0
    var refused = (room: 0, share: 0)
    for _ in 0..<20_000 {
      if Int.random(in: 0..<10, using: &random) < 6 {
        let count = [0, 1, 63, 64, 65, 1400, 9000, 65_535].randomElement(using: &random) ?? 0
        let row = Int32.random(in: 0..<6, using: &random)
        let bytes = pool.bytes(0).slice(0, count)
        if count > 0 { (bytes[0], bytes[count - 1]) = (UInt8(truncatingIfNeeded: number), UInt8(number >> 8 & 255)) }
        func held(_ rows: ClosedRange<Int32>) -> Int {
          waiting.reduce(0) { $0 + (rows.contains($1.row) ? HandOffQueue.recordLength($1.bytes.count) : 0) }
        }
        let mayHave = Shares.mayHave(
          HandOffQueue.recordLength(count), beside: held(row...row), left: queue.capacity - held(0...5),
          least: HandOffQueue.recordLength(0xFFFF))
        if queue.post(Self.handOff(number), bytes, of: Holder(row: row)) {
          waiting.append((number, bytes.array(), row))
          #expect(mayHave)
        } else if mayHave {
          refused.room += 1
          // All that may be wasted is less than a record, skipped before the end by this one or by one that waits.
          #expect(held(0...5) + 2 * HandOffQueue.recordLength(0xFFFF) > queue.capacity)
        } else {
          refused.share += 1
        }
        number += 1
        let report = queue.shares()
        #expect(report.used == held(0...5) && report.refused == UInt64(refused.room + refused.share))
      } else {
        let mayTake = Int.random(in: 0..<4, using: &random) > 0
        let isTaken = queue.take { handOff, bytes in
          #expect(!waiting.isEmpty && Self.number(handOff) == waiting[0].number && handOff.version == 7)
          #expect(!waiting.isEmpty && bytes.array() == waiting[0].bytes)
          return mayTake
        }
        #expect(isTaken == (mayTake && !waiting.isEmpty))
        if isTaken { waiting.removeFirst() }
      }
      #expect(queue.isEmpty == waiting.isEmpty)
    }
    #expect(refused.room > 10 && refused.share > 100)
  }

  /// One peer's packets fill what he may have; another's go on, and messages with them.
  @Test func whoFloodsLosesHisOwn() {
    let pool = BufferPool(count: 1)
    let queue = HandOffQueue(capacity: 1 << 20)
    let packet = pool.bytes(0).slice(0, 1400)
    let (bob, carol) = (Holder(row: 3), Holder(row: 4))
    for round in 0..<50 {
      var taken = 0
      while queue.post(Self.handOff(0), packet, of: bob) { taken += 1 }
      #expect(round > 0 || taken > 200)
      #expect(queue.post(Self.handOff(1), packet, of: carol) && queue.post(Self.handOff(2)))
      while !queue.isEmpty { _ = queue.take { _, _ in true } }
    }
    let report = queue.shares()
    #expect(report.used == 0 && report.holders.map(\.holder) == [bob] && report.holders[0].refused == 50)
  }

  private final class Channel: Sendable {
    let queue = HandOffQueue(capacity: 1 << 18)
    let refused = Atomic<Int>(0)
  }

  /// Two threads at full speed: numbers arrive in order, whole, and as many as were taken in.
  @Test func keepsOrderBetweenThreads() async {
    let channel = Channel()
    let count = 60_000
    let sender = Task.detached {
      let pool = BufferPool(count: 1)
      for number in 0..<count {
        let bytes = pool.bytes(0).slice(0, 8 + number % 1400)
        bytes.store64(UInt64(number), bytes.count - 8)
        while !channel.queue.post(Self.handOff(number), bytes) {
          channel.refused.wrappingAdd(1, ordering: .relaxed)
          await Task.yield()
        }
      }
    }
    var next = 0
    var wrong = 0
    while next < count {
      let isTaken = channel.queue.take { handOff, bytes in
        if Self.number(handOff) != next || bytes.count != 8 + next % 1400
          || bytes.load64(bytes.count - 8) != UInt64(next)
        {
          wrong += 1
        }
        next += 1
        return true
      }
      if !isTaken { await Task.yield() }
    }
    await sender.value
    #expect(wrong == 0 && channel.queue.isEmpty)
  }
}
