import Glibc
import PacketIO
import TestSupport
import Testing

@testable import Transports

/// What waits for a stream that takes nothing.
@Suite struct ByteQueueTests {
  /// Whatever is taken and added, the bytes come in order, and no more is kept than waits.
  @Test(arguments: 0..<8 as Range<UInt64>) func bytesComeInOrder(seed: UInt64) throws {
    var random = SeededNumbers(seed: seed)
    var ends: [Int32] = [-1, -1]
    try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    defer { for end in ends { close(end) } }
    var streams = StreamTable(
      capacity: 1, limits: .init(unauthenticated: 1, perOrigin: 1, evictsWithinOrigin: true), dials: false)
    let here = Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 1)
    let accepted = streams.accepted(dup(ends[0]), from: here, deadline: MonotonicTime(nanoseconds: 0))
    let place = try #require(accepted)
    var queue = ByteQueue()
    var (expected, found): ([UInt8], [UInt8]) = ([], [])
    var buffer = [UInt8](repeating: 0, count: 1 << 20)
    for round in 0..<60 {
      // More than the socket takes, so that the queue is never empty for long.
      let bytes = random.bytes(random.below(200_000))
      queue.append(bytes)
      expected += bytes
      #expect(queue.keptBytes <= 2 * queue.count, "round \(round)")
      _ = queue.send(to: place, &streams)
      let count = recv(ends[1], &buffer, random.below(150_000) + 1, Int32(MSG_DONTWAIT))
      if count > 0 { found += buffer[..<count] }
    }
    while found.count < expected.count {
      _ = queue.send(to: place, &streams)
      let count = recv(ends[1], &buffer, buffer.count, Int32(MSG_DONTWAIT))
      guard count > 0 else { break }
      found += buffer[..<count]
    }
    #expect(found == expected && queue.isEmpty)
    streams.beginClosing(place)
    streams.release(place)
  }
}
