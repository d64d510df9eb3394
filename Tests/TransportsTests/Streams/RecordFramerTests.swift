import Glibc
import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Transports

/// Records of a stream, however its bytes are spread over reads: what a slow oracle finds, and nothing else.
@Suite struct RecordFramerTests {
  /// The prefix and a few records: equal ones, a shorter and a longer one, and what is no packet.
  private static let small: [UInt8] =
    Array("IKETCP".utf8)
    + [
      [9, 1, 1, 1, 1], [9, 2, 2, 2, 2], [9, 3, 3, 3], [0xFF], [9, 4, 4, 4, 4, 4], [0, 0, 0, 0, 7], [], [9, 5, 5, 5],
    ]
    .flatMap(StreamOracle.record)

  @Test(arguments: [false, true]) func everySplitIntoThreeReads(isStranger: Bool) throws {
    let bytes = Self.small
    let expected = StreamOracle(bytes)
    #expect(expected.packets.count == 5 && expected.keepAlives == 1 && expected.keyExchange == 1)
    #expect(expected.tooShort == 1)
    for first in 0...bytes.count {
      for second in first...bytes.count {
        let bench = try StreamBench(isStranger: isStranger)
        for read in [bytes[..<first], bytes[first..<second], bytes[second...]] { bench.bring(read) }
        #expect(bench.outcome == expected, "split at \(first) and \(second)")
        #expect(bench.lostBuffers == 0)
      }
    }
  }

  @Test(arguments: [false, true]) func byteByByte(isStranger: Bool) throws {
    let bench = try StreamBench(isStranger: isStranger)
    for byte in Self.small { bench.bring([byte]) }
    #expect(bench.outcome == StreamOracle(Self.small) && bench.lostBuffers == 0)
  }

  /// Only who accepts a stream sees the prefix.
  @Test func theOriginatorGetsNoPrefix() throws {
    let bytes = Array(Self.small.dropFirst(6))
    let bench = try StreamBench(isOriginator: true)
    bench.bring(bytes)
    #expect(bench.outcome == StreamOracle(bytes, isOriginator: true) && bench.packets.count == 5)
  }

  /// Records of all lengths there are, in reads of all lengths there are, and a batch that has little room.
  @Test(arguments: 0..<24) func randomStreams(seed: UInt64) throws {
    var random = SeededNumbers(seed: seed)
    var bytes = RecordFramer.prefix
    let longest = [20, 1500, 9000, 65533][Int(seed % 4)]
    while bytes.count < 150_000 {
      let kind = Int.random(in: 0..<20, using: &random)
      let length = Int.random(in: 4...longest, using: &random)
      let count = Int.random(in: 1...(kind == 19 ? 300 : 40), using: &random)
      switch kind {
      case 0: bytes += [0, 3, 0xFF]
      case 1: bytes += StreamOracle.record([0, 0, 0, 0, 1, 2, 3])
      case 2: bytes += StreamOracle.record([UInt8](repeating: 7, count: Int.random(in: 0...3, using: &random)))
      default:
        for _ in 0..<min(count, max(200_000 / length, 1)) {
          bytes += StreamOracle.record((0..<length).map { UInt8(truncatingIfNeeded: $0 | 1) })
        }
      }
    }
    // Some end badly.
    if seed % 5 == 0 { bytes += [0, UInt8(seed % 2), 9, 9, 9] }
    let bench = try StreamBench(isStranger: seed % 3 == 0, room: seed % 2 == 0 ? 1 : 192, buffers: 64)
    let most = [1, 100, 3000, 65472][Int.random(in: 0..<4, using: &random)]
    var offset = 0
    while offset < bytes.count {
      // Byte by byte would take long.
      let count = min(
        most == 1 ? Int.random(in: 1...40, using: &random) : Int.random(in: 1...most, using: &random),
        bytes.count - offset)
      bench.bring(bytes[offset..<(offset + count)])
      offset += count
    }
    #expect(bench.outcome == StreamOracle(bytes), "seed \(seed)")
    #expect(bench.lostBuffers == 0)
  }

  @Test func everyWrongPrefixEndsTheStreamAtItsFirstWrongByte() throws {
    for wrong in 0..<6 {
      var prefix = RecordFramer.prefix
      prefix[wrong] ^= 1
      let bench = try StreamBench(isStranger: true)
      bench.bring(prefix[..<wrong])
      #expect(bench.link.streams[bench.place].state == .open)
      bench.bring(prefix[wrong...wrong])
      #expect(bench.counters["ended-bad-prefix"] == 1 && bench.counters["streams"] == 0)
      #expect(bench.lostBuffers == 0)
    }
  }

  @Test(arguments: [0, 1] as [UInt8]) func lengthsThatDoNotIncludeThemselvesEndTheStream(length: UInt8) throws {
    let bench = try StreamBench()
    let good = RecordFramer.prefix + StreamOracle.record([1, 2, 3, 4])
    bench.bring(good + [0, length] + StreamOracle.record([5, 6, 7, 8]))
    #expect(bench.packets == [[1, 2, 3, 4]])
    #expect(bench.counters["ended-bad-length"] == 1 && bench.counters["streams"] == 0)
    // A partner hears of it, so that it looks for another path.
    #expect(bench.io.takeEvents().map(\.error) == [EPROTO] && bench.lostBuffers == 0)
  }

  /// Equal records are one superpacket, with their lengths between them; a shorter one ends it.
  @Test func equalRecordsAreOneSuperpacket() throws {
    let bench = try StreamBench()
    let records = (0..<40).map { [UInt8](repeating: UInt8($0 + 1), count: $0 == 39 ? 700 : 1450) }
    bench.bring(RecordFramer.prefix + records.flatMap(StreamOracle.record))
    #expect(bench.packets == records && bench.superpackets == 1)
    bench.bring((0..<300).flatMap { _ in StreamOracle.record([9, 9, 9, 9]) })
    #expect(bench.superpackets == 4, "128 at most")
  }

  /// Beginnings that strangers leave are bounded in all, whatever they send.
  @Test func strangersThatDoNotFinishTheirRecordsFillNoMemory() throws {
    var carries = RecordCarry(heldLimit: 2, stashLimit: 10_000)
    let pool = BufferPool(count: 8)
    let buffer = pool.take()!
    var parts = [RecordCarry.Part](repeating: RecordCarry.Part(), count: 8)
    let kept = parts.indices.map { index in
      carries.keep(
        &parts[index], of: index, holder: .peer(UInt32(index)), buffer: buffer, offset: 4096, length: 4000,
        needed: 5000, mayHold: index < 4,
        pool: pool)
    }
    // Two in their buffer, two in 10 000 bytes of memory, and no more.
    #expect(kept == [true, true, true, true, false, false, false, false])
    for index in parts.indices { carries.drop(&parts[index], of: index, pool: pool) }
    #expect(
      carries.keep(
        &parts[7], of: 7, holder: .peer(7), buffer: buffer, offset: 4096, length: 4000, needed: 5000, mayHold: false,
        pool: pool))
    pool.release(buffer)
    #expect(pool.available == 8)
  }

  /// Who begins records on many streams fills his own share, and a stranger none of a peer's.
  @Test func whoBeginsManyRecordsFillsHisShare() throws {
    var carries = RecordCarry(heldLimit: 6, stashLimit: 1 << 20)
    let pool = BufferPool(count: 4)
    let buffer = pool.take()!
    var parts = [RecordCarry.Part](repeating: RecordCarry.Part(), count: 1000)
    var next = 0
    func keep(_ holder: Holder, mayHold: Bool = true) -> Bool {
      next += 1
      return carries.keep(
        &parts[next], of: next, holder: holder, buffer: buffer, offset: 4096, length: 60_000, needed: 65_000,
        mayHold: mayHold, pool: pool)
    }
    var kept = 0
    while keep(.peer(1)) { kept += 1 }
    // Two buffers, and a third of the memory.
    #expect((7...8).contains(kept))
    let others = (2..<6).map { keep(.peer($0)) }
    #expect(others == [true, true, true, true])
    let stranger = Holder(strangerAt: IPAddress(v4: 1))
    kept = 0
    while keep(stranger, mayHold: false) { kept += 1 }
    #expect(kept == 1)
    let peer = keep(.peer(7))
    #expect(peer)
    for index in parts.indices { carries.drop(&parts[index], of: index, pool: pool) }
    #expect(carries.shares().allSatisfy { $0.used == 0 })
    pool.release(buffer)
    #expect(pool.available == 4)
  }
}
