import PacketIO
import Testing

@testable import Host

/// A log grows no faster than it may, and the newest of each subject comes through.
@Suite struct LogLimitTests {
  private func time(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: 0).adding(seconds: seconds + 1) }

  @Test func aSubjectHasAFewLinesAtOnceAndItsNewestLater() {
    var limit = LogLimit<Int>(now: time(0))
    let admitted = (0..<100_000).filter { limit.admit($0, about: "a", now: time(Double($0) * 1e-4)) }
    #expect(admitted == [0, 1, 2, 3, 4])
    let due = limit.due(now: time(10.1))
    #expect(due.count == 1 && due.first?.event == 99_999 && due.first?.leftOut == 99_994)
    #expect(limit.due(now: time(60)).isEmpty && limit.takeForgotten() == 0)
    // Others are not concerned.
    let isOther = limit.admit(1, about: "b", now: time(60))
    #expect(isOther)
  }

  /// Hundreds of peers that move all the time, for hours: as many lines as are allowed, and no memory beyond the
  /// capacity.
  @Test func allTogetherHaveALimit() {
    var limit = LogLimit<Int>(capacity: 100, now: time(0))
    var lines = 0
    var last = 0.0
    for second in stride(from: 0.0, to: 6000, by: 60) {
      for subject in 0..<150 {
        for event in 0..<3 where limit.admit(event, about: "\(subject)", now: time(second)) { lines += 1 }
      }
      lines += limit.due(now: time(second)).count
      last = second
    }
    #expect(lines <= 100 + Int(last / 5) + 1, "\(lines) lines")
    #expect(lines > 500)
    #expect(limit.takeForgotten() > 1000)
  }

  /// One holder gives cause for more than there is room for, all the time and under many subjects; another now and then.
  @Test(arguments: [1, 3, 20]) func whoSaysMuchKeepsNobodyOut(subjects: Int) {
    for abusers in [1, 2] {
      var limit = LogLimit<Int>(now: time(0))
      var (longest, heard) = (0, 0)
      for second in 0..<4_000 {
        for abuser in 0..<abusers {
          for subject in 0..<subjects {
            for _ in 0..<3 {
              _ = limit.admit(-1, about: "\(subject) of \(abuser)", of: "\(abuser)", now: time(Double(second)))
            }
          }
        }
        var lines = limit.due(now: time(Double(second))).map(\.event)
        if second >= 1000, second % 200 == 0,
          limit.admit(second, about: "path of good", of: "good", now: time(Double(second)))
        {
          lines.append(second)
        }
        for event in lines where event >= 0 {
          heard += 1
          longest = max(longest, second - event)
        }
      }
      #expect(heard == 15 && longest <= 5 * (abusers + 1), "\(heard) heard, \(longest) s")
    }
  }

  /// The worst that can be, for three hours, and what that makes in a year.
  @Test func aYear() {
    let seconds = 3 * 3600
    var limit = LogLimit<Int>(now: time(0))
    var lines = 0
    for second in 0..<seconds {
      for subject in 0..<8 where limit.admit(0, about: "\(subject)", now: time(Double(second))) { lines += 1 }
      lines += limit.due(now: time(Double(second))).count
    }
    let most = 100 + 0.2 * Double(seconds)
    #expect(Double(lines) <= most + 1 && Double(lines) > 0.95 * most)
    let bytes = LogLimit<Int>.linesOfAYear * 200
    print("FIGURE: a year's log at the worst rate that others can cause: \(bytes / 1e9) GB of lines of 200 bytes")
    #expect(bytes < 1.3e9)
  }

  @Test func whatIsPutOffGoesInNoOneElsesPlace() {
    var limit = LogLimit<String>(now: time(0))
    for round in 0..<10 {
      for subject in ["a", "b", "c"] { _ = limit.admit("\(subject)\(round)", about: subject, now: time(0)) }
    }
    let due = limit.due(now: time(11)).map(\.event).sorted()
    #expect(due == ["a9", "b9", "c9"])
  }
}
