import Glibc
import Lab
import PacketIO
import Testing
import TransportSupport

@testable import Transports

/// Streams over real sockets, on the loopback interface of a namespace of our own.
@Suite(.serialized, .enabled(if: canMakeNamespaces, "needs root and iproute2: see SKIPPED above"))
struct TCPLoopbackTests {
  /// Trains of different lengths; each record is another.
  private static func trains(_ counts: [Int], size: Int) -> [[[UInt8]]] {
    var number = 1
    return counts.map { count in
      (0..<count).map { index in
        defer { number += 1 }
        let length = index == count - 1 && count > 1 ? size / 2 : size
        return [1, 2, UInt8(number >> 8), UInt8(number & 0xFF)]
          + [UInt8](repeating: UInt8(number & 0xFF), count: length - 4)
      }
    }
  }

  /// With each set of kernel features: what an older kernel lacks costs speed and no packet.
  @Test(arguments: [.all, [.deferredTaskRun, .bufferRings], []] as [RingFeatures], [true, false])
  func trainsArriveWholeAndAreAnswered(features: RingFeatures, isV4: Bool) async throws {
    let trains = Self.trains([1, 45, 2, 45, 45, 7, 64, 1, 128], size: isV4 ? 500 : 250)
    try await Namespace("tcp").inside {
      let sender = try StreamEnd(nil, features: features)
      let receiver = try StreamEnd(4502, features: features)
      let there = StreamEnd.path(4502, isV4: isV4)
      sender.send(trains, to: there)
      #expect(StreamEnd.turn([sender, receiver]) { receiver.received.values.first?.count == 338 })
      let back = try #require(receiver.received.keys.first)
      #expect(receiver.received[back] == trains.flatMap { $0 })
      #expect(back.tag > 0 && back.endpoint.address == there.endpoint.address && receiver.superpackets < 60)
      receiver.send(trains, to: back)
      #expect(StreamEnd.turn([sender, receiver]) { sender.received[there]?.count == 338 })
      #expect(sender.received == [there: trains.flatMap { $0 }])
      for end in [sender, receiver] {
        #expect(StreamEnd.turn([sender, receiver]) { end.counter("sent-datagrams") == 338 })
        #expect(end.counter("sent-trains") == 9 && end.counter("received-datagrams") == 338)
        #expect(end.counter("streams") == 1 && end.counter("streams-unidentified") == 0)
      }
      #expect(sender.reports == [TransportEvent(.opened, there)] && receiver.reports == [])
      #expect(receiver.io.pool.available >= receiver.idleBuffers - 1)
    }
  }

  /// Who does not read gets what there is room for; the newest of the rest is dropped, and nobody else notices.
  @Test func aSlowReaderStallsNobody() async throws {
    try await Namespace("tcp").inside {
      let sender = try StreamEnd(nil)
      let receiver = try StreamEnd(4502)
      let slow = Stranger(listeningAt: 4503)
      let train = Self.trains([60], size: 1000)
      _ = slow
      sender.send(train, to: StreamEnd.path(4503))
      sender.send(train, to: StreamEnd.path(4502))
      #expect(StreamEnd.turn([sender, receiver]) { !receiver.received.isEmpty })
      var given = 1
      for _ in 0..<1000 where sender.counter("send-queue-full") == 0 {
        sender.send(train, to: StreamEnd.path(4503))
        sender.turn()
        given += 1
      }
      #expect(sender.counter("send-queue-full") == 60)
      // At most a third of half of the buffers waits.
      #expect(sender.idleBuffers - sender.io.pool.available <= 16 + 17)
      for _ in 0..<100 {
        sender.send(train, to: StreamEnd.path(4502))
        sender.turn()
        receiver.turn()
      }
      #expect(StreamEnd.turn([sender, receiver]) { receiver.received.values.first?.count == 101 * 60 })
      #expect(sender.counter("send-queue-full") == 60)
      // What it never took is accounted for at the end.
      let sent = sender.counter("sent-datagrams")
      sender.close()
      #expect(sent + 60 + sender.counter("send-error-stream-lost") == UInt64((given + 101) * 60))
    }
  }

  @Test func whatIsSentToAStreamThatHasEndedIsCountedAndReported() async throws {
    try await Namespace("tcp").inside {
      let sender = try StreamEnd(nil)
      let train = Self.trains([3], size: 200)
      let there = StreamEnd.path(4502)
      var receiver: StreamEnd? = try StreamEnd(4502)
      sender.send(train, to: there)
      #expect(StreamEnd.turn([sender, receiver!]) { receiver!.received.count == 1 })
      let accepted = try #require(receiver!.received.keys.first)
      receiver!.send(train, to: accepted)
      #expect(StreamEnd.turn([sender, receiver!]) { sender.received.count == 1 })

      receiver!.close()
      receiver = nil
      #expect(StreamEnd.turn([sender]) { sender.reports.count == 2 })
      #expect(sender.reports.last == TransportEvent(.ended(ECONNRESET), there))
      #expect(sender.counter("streams") == 0)
      // Not again at once, and then it finds nobody.
      sender.send(train, to: there)
      #expect(sender.counter("send-error-not-connected") == 3)
      #expect(StreamEnd.turn([sender]) { sender.reports.contains { $0.error == ECONNREFUSED } })

      // The same path, another stream; the old one's number leads nowhere.
      let second = try StreamEnd(4502)
      #expect(
        StreamEnd.turn([sender, second]) {
          sender.send(train, to: there)
          return !second.received.isEmpty
        })
      #expect(second.received.values.first?.prefix(3) == train[0][...] && sender.counter("streams-opened") == 2)
      var dead = accepted
      dead.tag = 1 << 40 | accepted.tag & 0xFFFF
      second.send(train, to: dead)
      #expect(second.counter("send-error-stream-gone") == 3)
      second.turn()
      #expect(second.reports == [TransportEvent(.failed(ENOTCONN), dead)])
    }
  }

  @Test func nobodyListens() async throws {
    try await Namespace("tcp").inside {
      let sender = try StreamEnd(nil)
      let train = Self.trains([1], size: 100)
      let begin = MonotonicTime.current()
      for port in [4502, 4503] as [UInt16] {
        sender.send(train, to: StreamEnd.path(port))
      }
      while MonotonicTime.current().nanoseconds(since: begin) < 900_000_000 {
        sender.send(train, to: StreamEnd.path(4502))
        sender.turn()
      }
      // At 0, and with jitter after 0.125…0.25, and 0.25…0.5 s more, and perhaps once again.
      #expect((4...8).contains(sender.counter("streams-dialled")))
      #expect(sender.counter("streams-opened") == 0 && sender.counter("streams") == 0)
      #expect(sender.reports.contains { $0.error == ECONNREFUSED && $0.path == StreamEnd.path(4503) })
      #expect(sender.idleBuffers - sender.io.pool.available <= 16)
    }
  }

  /// Streams of nobody: few of one address, few in all, and not for long. Who proves to be a partner stays.
  @Test func streamsThatDoNotIdentifyThemselvesAreLimited() async throws {
    try await Namespace("tcp").inside {
      var limits = TCPTransport.Limits()
      limits.unidentified = 8
      limits.unidentifiedPerAddress = 4
      limits.identificationTime = .milliseconds(600)
      let receiver = try StreamEnd(4502, limits)
      let sender = try StreamEnd(nil)
      sender.send(Self.trains([1], size: 100), to: StreamEnd.path(4502))
      #expect(StreamEnd.turn([sender, receiver]) { receiver.received.count == 1 })

      let crowd = (0..<6).map { _ in Stranger(to: 4502) }
      #expect(StreamEnd.turn([receiver]) { receiver.counter("streams-accepted") == 5 })
      #expect(StreamEnd.turn([receiver]) { receiver.counter("refused-too-many-of-address") == 2 })
      #expect(crowd.suffix(2).allSatisfy(\.isEnded) && !crowd[0].isEnded)
      // From elsewhere: the oldest make room.
      let others = (2..<8).map { Stranger(to: 4502, from: "127.0.0.\($0)") }
      #expect(StreamEnd.turn([receiver]) { receiver.counter("streams-accepted") == 11 })
      #expect(receiver.counter("ended-evicted") == 2 && receiver.counter("streams-unidentified") == 8)
      #expect(crowd[0].isEnded && crowd[1].isEnded && !crowd[2].isEnded && !others[0].isEnded)
      // Words of nobody do not help.
      others[0].say(RecordFramer.prefix + StreamOracle.record([1, 2, 3, 4, 5]))
      receiver.trusts = false
      #expect(StreamEnd.turn([receiver], within: 3) { receiver.counter("streams-unidentified") == 0 })
      #expect(receiver.counter("ended-unidentified") == 8 && others.allSatisfy(\.isEnded))
      #expect(StreamEnd.turn([receiver]) { receiver.counter("streams") == 1 })
      receiver.trusts = true
      sender.send(Self.trains([2], size: 100), to: StreamEnd.path(4502))
      #expect(StreamEnd.turn([sender, receiver]) { receiver.received.values.contains { $0.count == 3 } })
      #expect(receiver.reports == [])
    }
  }

  /// Bytes of the process that memory holds.
  private static func resident() -> Int {
    let words = (ProcFile.read("/proc/self/statm") ?? "").split(separator: " ")
    return words.count > 1 ? (Int(words[1]) ?? 0) * 4096 : 0
  }

  private static let crowd = 6000

  /// A silent stream holds no packet buffer, and little else, and thousands of them hold nobody up.
  @Test func thousandsOfSilentStreams() async throws {
    OpenFiles.raiseLimit(wanted: 2 * Self.crowd + 500)
    try await Namespace("tcp").inside {
      var limits = TCPTransport.Limits()
      limits.streams = Self.crowd + 100
      limits.unidentified = Self.crowd
      limits.unidentifiedPerAddress = Self.crowd
      let receiver = try StreamEnd(4502, limits)
      let sender = try StreamEnd(nil)
      sender.send(Self.trains([40], size: 1000), to: StreamEnd.path(4502))
      #expect(StreamEnd.turn([sender, receiver]) { receiver.received.count == 1 })
      let before = Self.resident()
      var crowd: [Stranger] = []
      for count in 1...Self.crowd {
        crowd.append(Stranger(to: 4502))
        // One in ten leaves a beginning.
        if count % 10 == 0 { crowd[count - 1].say(RecordFramer.prefix + [4, 0] + [UInt8](repeating: 9, count: 100)) }
        guard count % 100 == 0 else { continue }
        sender.send(Self.trains([20], size: 500), to: StreamEnd.path(4502))
        #expect(StreamEnd.turn([sender, receiver]) { receiver.counter("streams") == 1 + UInt64(count) })
        let there = 40 + count / 5
        #expect(StreamEnd.turn([sender, receiver]) { receiver.received.values.first?.count == there })
      }
      sender.send(Self.trains([128, 128, 128], size: 500), to: StreamEnd.path(4502))
      #expect(
        StreamEnd.turn([sender, receiver]) { receiver.received.values.first?.count == 40 + Self.crowd / 5 + 384 })
      #expect(receiver.counter("streams-ended") == 0 && sender.counter("streams-dialled") == 1)
      #expect(receiver.idleBuffers - receiver.io.pool.available <= 1)
      #expect((Self.resident() - before) / Self.crowd < 4096, "bytes for each")
    }
  }

  /// Messages go along a stream in both directions, before anything authentic has come, and also past a queue that is
  /// full of packets. Whoever answers a message does not take its sender for a peer.
  @Test func messagesArriveInBothDirections() async throws {
    let said = [1, 2, 3, 1400, 60_000].map { [UInt8](repeating: 0, count: $0) }
    try await Namespace("tcp").inside {
      let dialler = try StreamEnd(nil)
      let listener = try StreamEnd(4502)
      for end in [dialler, listener] {
        end.takesMessages = true
        end.trusts = false
      }
      let there = StreamEnd.path(4502)
      for message in said { dialler.send(message: message, to: there) }
      #expect(StreamEnd.turn([dialler, listener]) { listener.messages.values.first?.count == 5 })
      let back = try #require(listener.messages.keys.first)
      #expect(listener.messages[back] == said && back.tag > 0)
      for message in said.reversed() { listener.send(message: message, to: back) }
      #expect(StreamEnd.turn([dialler, listener]) { dialler.messages[there]?.count == 5 })
      #expect(dialler.messages == [there: said.reversed()])
      #expect(listener.counter("streams-unidentified") == 1 && listener.counter("messages-sent") == 5)
      #expect(listener.counter("messages-received") == 5 && listener.counter("sent-datagrams") == 0)
      // To a stream that is gone, and where nobody takes them.
      listener.send(message: [1], to: Path(transport: 1, endpoint: back.endpoint, tag: back.tag + 1 << 16))
      #expect(listener.counter("messages-failed") == 1)
      listener.takesMessages = false
      dialler.send(message: [1], to: there)
      #expect(StreamEnd.turn([dialler, listener]) { listener.counter("key-exchange-ignored") == 1 })
      #expect(listener.io.pool.available >= listener.idleBuffers - 1)
    }
  }
}
