import PacketIO

@testable import Dataplane

/// What a packet between two path selections is.
enum PathContent {
  case traffic
  case probe(ProbeMessage)
  case reply(ProbeReply)
}

extension PathSelection {
  /// What a worker does for a selection first, when its time has come; the probes are to be sent.
  ///
  /// - Parameters:
  ///   - number: of the last probe so far.
  ///   - isStream: whether packets of any size get through there.
  mutating func serve(
    _ traffic: Traffic, number: inout UInt64, now: MonotonicTime, isStream: (Path) -> Bool
  ) -> [Probe] {
    for index in candidates.indices where !candidates[index].isSettled {
      candidates[index].isSettled = true
      candidates[index].overhead = isStream(candidates[index].path) ? nil : 28
    }
    var last = number
    defer { number = last }
    return poll(traffic, now: now) {
      last += 1
      return last
    }
  }
}
