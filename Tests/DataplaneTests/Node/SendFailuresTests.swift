import PacketIO
import Testing

@testable import Dataplane

/// A path that fails packet after packet is told of once.
@Suite struct SendFailuresTests {
  private func path(_ port: UInt16) -> Path {
    Path(endpoint: Endpoint(address: IPAddress(v4: 0xC000_0201), port: port))
  }
  private func time(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: 0).adding(seconds: seconds + 1) }

  @Test func aHundredThousandFailuresAreOnePieceOfNewsAndOneOfRecovery() {
    var failures = SendFailures()
    var news = 0
    for packet in 0..<100_000 {
      if failures.note(path(1), error: 101, count: 1, now: time(Double(packet) * 1e-4)) { news += 1 }
    }
    #expect(news == 1)
    // Where nothing is sent, nothing is known.
    #expect(failures.takeRecovered(now: time(1000)).isEmpty)
    failures.noteTry(path(1), now: time(10))
    failures.noteTry(path(1), now: time(13))
    #expect(failures.takeRecovered(now: time(14.9)).isEmpty)
    let recovered = failures.takeRecovered(now: time(15.1))
    #expect(recovered.count == 1 && recovered.first?.path == path(1) && recovered.first?.untold == 99_999)
    #expect(failures.takeRecovered(now: time(30)).isEmpty)
    // What fails again is news again.
    let again = failures.note(path(1), error: 101, count: 3, now: time(31))
    failures.noteTry(path(1), now: time(32))
    #expect(again && failures.takeRecovered(now: time(40)).first?.untold == 2)
  }

  /// What was sent and has failed shows nothing.
  @Test func aTryThatFails() {
    var failures = SendFailures()
    for second in stride(from: 0.0, to: 100, by: 10) {
      failures.noteTry(path(1), now: time(second))
      _ = failures.note(path(1), error: 101, count: 1, now: time(second + 0.001))
      #expect(failures.takeRecovered(now: time(second + 9)).isEmpty)
    }
    failures.noteTry(path(1), now: time(100))
    #expect(failures.takeRecovered(now: time(105)).first?.untold == 9)
  }

  @Test func anotherReasonIsNewsButNotEachTime() {
    var failures = SendFailures()
    var news: [Int32] = []
    for turn in 0..<600 {
      let error: Int32 = turn % 2 == 0 ? 101 : 113
      if failures.note(path(1), error: error, count: 1, now: time(Double(turn) / 50)) { news.append(error) }
    }
    // Twelve seconds of two errors in turns.
    #expect(news.count == 3 && Set(news) == [101, 113])
  }

  @Test func morePathsThanAreRememberedAreNotTold() {
    var failures = SendFailures()
    let news = (0..<10_000).filter { failures.note(path(UInt16($0)), error: 101, count: 1, now: time(0)) }
    #expect(news.count == SendFailures.capacity)
    // Where nothing is sent any more, there is room in the end.
    let isRoom = failures.note(path(9999), error: 101, count: 1, now: time(7))
    #expect(isRoom)
    for port in 0..<10_000 { failures.noteTry(path(UInt16(port)), now: time(8)) }
    #expect(failures.takeRecovered(now: time(13)).count == SendFailures.capacity)
    #expect(failures.isEmpty)
  }
}
