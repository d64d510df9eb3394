import Glibc
import PacketIO
import TestSupport
import Testing
import TransportSupport

@testable import Transports

/// What waits for streams, and what sends of it consist of.
@Suite struct SendQueueTests {
  private static func train(_ id: Int, count: Int = 1) -> Superpacket {
    Superpacket(buffer: BufferID(id), offset: 128, length: 100 * count, segmentSize: 100)
  }

  /// One slow stream takes its share, many share what there is, and who comes last always finds room.
  @Test func slowStreamsLeaveRoomForOthers() {
    var queues = SendQueues(capacity: 96, trainsPerStream: 32)
    var slow = [SendQueues.Queue](repeating: SendQueues.Queue(), count: 7)
    var taken: [Int] = []
    for index in slow.indices {
      var count = 0
      while queues.append(Self.train(index), to: &slow[index], of: .peer(UInt32(index))) { count += 1 }
      taken.append(count)
    }
    #expect(taken[0] == 32 && taken.allSatisfy { $0 >= 1 } && taken == taken.sorted(by: >))
    #expect(taken.reduce(0, +) < 96)
    // What flows is never refused while others stand.
    var flowing = SendQueues.Queue()
    for _ in 0..<100 {
      #expect(queues.append(Self.train(50), to: &flowing, of: .peer(99)))
      var bytes = 102
      #expect(queues.advance(&flowing, by: &bytes)?.train.buffer == 50)
    }
  }

  /// Who has many streams has not more than who has one.
  @Test func streamsOfOnePeerShareItsPart() {
    var queues = SendQueues(capacity: 96, trainsPerStream: 32)
    var slow = [SendQueues.Queue](repeating: SendQueues.Queue(), count: 40)
    var taken = 0
    for index in slow.indices { while queues.append(Self.train(index), to: &slow[index], of: .peer(1)) { taken += 1 } }
    #expect(taken == 32)
    var flowing = SendQueues.Queue()
    for _ in 0..<21 { #expect(queues.append(Self.train(50), to: &flowing, of: .peer(2))) }
    #expect(queues.shares().holders.first { $0.holder == .peer(1) }?.refused == 40)
  }

  /// What holds a stream open finds room in a full queue, a few times.
  @Test func aFullQueueTakesMessages() {
    var queues = SendQueues(capacity: 96, trainsPerStream: 8)
    var queue = SendQueues.Queue()
    while queues.append(Self.train(1), to: &queue, of: .peer(1)) {}
    for _ in 0..<4 { #expect(queues.append(Self.train(2), to: &queue, of: .peer(1), isMessage: true)) }
    #expect(!queues.append(Self.train(2), to: &queue, of: .peer(1), isMessage: true) && queue.count == 12)
  }

  /// Against arrays: order, what is full, and how far sends have come.
  @Test(arguments: 0..<20) func queuesKeepTheirOrder(seed: UInt64) {
    var random = SeededNumbers(seed: seed)
    var queues = SendQueues(capacity: 20, trainsPerStream: 8)
    var found = [SendQueues.Queue](repeating: SendQueues.Queue(), count: 4)
    var expected = [[Int]](repeating: [], count: 4)
    var skip = [Int](repeating: 0, count: 4)
    var sizes: [Int: Int] = [:]
    for id in 0..<2000 {
      let stream = Int.random(in: 0..<4, using: &random)
      if Bool.random(using: &random) {
        let free = 20 - expected.reduce(0) { $0 + $1.count }
        let fits = expected[stream].count < max(min(8, free / 2), 1) && free > 0
        let count = Int.random(in: 1...5, using: &random)
        #expect(queues.append(Self.train(id, count: count), to: &found[stream], of: .peer(UInt32(stream))) == fits)
        if fits {
          expected[stream].append(id)
          sizes[id] = count * 102
        }
      } else {
        var bytes = Int.random(in: 0...900, using: &random)
        var left = bytes
        while let train = queues.advance(&found[stream], by: &bytes)?.train {
          #expect(Int(train.buffer) == expected[stream].first)
          left -= sizes[expected[stream].removeFirst()]! - skip[stream]
          skip[stream] = 0
        }
        if !expected[stream].isEmpty { skip[stream] += left }
        #expect(found[stream].skip == skip[stream] && found[stream].count == expected[stream].count)
      }
    }
  }

  /// However a stream takes its bytes, they are the prefix and the records, each with its length in front.
  @Test(arguments: 0..<12) func gatheredSendsAreTheRecords(seed: UInt64) {
    var random = SeededNumbers(seed: seed)
    let pool = BufferPool(count: 8)
    var queues = SendQueues(capacity: 64, trainsPerStream: 7)
    var queue = SendQueues.Queue()
    var expected = RecordFramer.prefix
    for _ in 0..<3 {
      let buffer = pool.take()!
      let size = Int.random(in: 4...3000, using: &random)
      let gap = seed % 3 == 0 ? 2 : 0
      let segments = Int.random(in: 1...min(128, 60_000 / (size + 2)), using: &random)
      let last = Int.random(in: 1...size, using: &random)
      let length = (segments - 1) * (size + gap) + last
      let bytes = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
      pool.bytes(buffer).copy(bytes, to: 128)
      let train = Superpacket(
        buffer: buffer, offset: 128, length: length, segmentSize: size, gap: UInt8(gap))
      #expect(train.datagrams == segments)
      #expect(queues.append(train, to: &queue, of: .peer(1)))
      for segment in 0..<segments {
        let start = segment * (size + gap)
        expected += StreamOracle.record(Array(bytes[start..<min(start + size, length)]))
      }
    }
    var gather = RecordGather(sends: 4)
    var prefix = 6
    var sent: [UInt8] = []
    while sent.count < expected.count {
      if gather.needsSubmission { gather.removeAll() }
      guard let message = gather.gather(queue, of: queues, prefix: prefix, pool: pool) else {
        Issue.record("nothing more is gathered")
        break
      }
      var offered: [UInt8] = []
      let header = message.pointee
      #expect(header.msg_iovlen <= RecordGather.most)
      for index in 0..<header.msg_iovlen {
        let vector = header.msg_iov[index]
        offered += UnsafeRawBufferPointer(start: vector.iov_base, count: vector.iov_len)
      }
      // The kernel takes some of it.
      var taken = Int.random(in: 1...min(offered.count, 70_000), using: &random)
      sent += offered[..<taken]
      let part = min(prefix, taken)
      prefix -= part
      taken -= part
      while let node = queues.advance(&queue, by: &taken) { pool.release(node.train.buffer) }
    }
    #expect(sent == expected && queue.isEmpty && pool.available == 8)
  }

  /// To a hairpin proxy: what goes out at once is announced when it is much, and a message is never inside.
  @Test func longRunsAreAnnouncedAndMessagesAreNotInThem() {
    let pool = BufferPool(count: 8)
    var queues = SendQueues(capacity: 8, trainsPerStream: 8)
    var queue = SendQueues.Queue()
    func append(_ word: UInt32, size: Int, count: Int) {
      guard let buffer = pool.take() else { return }
      for packet in 0..<count { pool.bytes(buffer).store32(word, 128 + packet * size) }
      _ = queues.append(
        Superpacket(buffer: buffer, offset: 128, length: size * count, segmentSize: size), to: &queue,
        of: .peer(1), isMessage: word == 0)
    }
    append(0x1001, size: 1400, count: 40)
    append(0, size: 28, count: 1)
    append(0x1001, size: 1400, count: 2)
    var gather = RecordGather(sends: 4, announcing: 3, .hairpin)
    var lists: [(run: Int, announcement: Int, bytes: [UInt8])] = []
    while let message = gather.gather(queue, of: queues, prefix: 0, announcing: 2, pool: pool) {
      var bytes: [UInt8] = []
      for index in 0..<message.pointee.msg_iovlen {
        let vector = message.pointee.msg_iov[index]
        bytes += UnsafeRawBufferPointer(start: vector.iov_base, count: vector.iov_len)
      }
      lists.append((gather.run.bytes, gather.run.announcement, bytes))
      var taken = bytes.count - gather.run.announcement
      while let node = queues.advance(&queue, by: &taken) { pool.release(node.train.buffer) }
    }
    #expect(lists.map(\.announcement) == [30, 0, 0])
    #expect(lists.map(\.bytes.count) == [30 + 40 * 1402, 30, 2 * 1402])
    #expect(
      HairpinMessage(Array(lists[0].bytes[2..<30])) == .run(bytes: 40 * 1402, packets: 40), "\(lists[0].bytes[..<30])")
  }

  /// A train of so many packets of 100 bytes.
  private static func append(
    _ count: Int, to queue: inout SendQueues.Queue, of queues: inout SendQueues, _ pool: BufferPool
  ) {
    guard let buffer = pool.take() else { return }
    for packet in 0..<count { pool.bytes(buffer).store32(0x1001, 128 + packet * 100) }
    _ = queues.append(
      Superpacket(buffer: buffer, offset: 128, length: 100 * count, segmentSize: 100), to: &queue, of: .peer(1))
  }

  /// What a queue holds is announced once, also when it takes several sends; what comes later is announced after it.
  @Test func aRunSpansSeveralSends() {
    let pool = BufferPool(count: 8)
    var queues = SendQueues(capacity: 16, trainsPerStream: 8)
    var queue = SendQueues.Queue()
    for _ in 0..<3 { Self.append(400, to: &queue, of: &queues, pool) }
    var gather = RecordGather(sends: 8, announcing: 1, .hairpin)
    var left = 0
    var lists: [(announcement: HairpinMessage?, records: Int)] = []
    while true {
      if gather.needsSubmission { gather.removeAll() }
      let place = left == 0 ? 0 : nil
      guard let message = gather.gather(queue, of: queues, prefix: 0, announcing: place, left: left, pool: pool) else {
        break
      }
      let header = message.pointee
      var announcement: HairpinMessage?
      if gather.run.announcement > 0 {
        let first = UnsafeRawBufferPointer(start: header.msg_iov[0].iov_base, count: header.msg_iov[0].iov_len)
        announcement = HairpinMessage(Array(first.dropFirst(2)))
        left = gather.run.announced
      }
      lists.append((announcement, gather.run.bytes / 102))
      left -= min(left, gather.run.bytes)
      var taken = gather.run.bytes
      while let node = queues.advance(&queue, by: &taken) { pool.release(node.train.buffer) }
      // More comes while the run is under way.
      if lists.count == 1 { Self.append(350, to: &queue, of: &queues, pool) }
    }
    let records: [Int] = lists.map(\.records)
    #expect(records == [511, 512, 177, 350])
    let first = HairpinMessage.run(bytes: 1200 * 102, packets: 1200)
    let second = HairpinMessage.run(bytes: 350 * 102, packets: 350)
    let announced: [HairpinMessage?] = lists.map(\.announcement)
    let expected: [HairpinMessage?] = [first, nil, nil, second]
    #expect(announced == expected)
    #expect(queue.isEmpty && pool.available == 8)
  }

  @Test func streamsAreDialledAgainLaterAndLater() {
    var redial = Redial()
    var now = MonotonicTime(nanoseconds: 1_000)
    #expect(redial.isDue(now))
    var waits: [UInt64] = []
    for _ in 0..<30 {
      redial.failed(now, random: 0)
      #expect(!redial.isDue(now))
      waits.append(redial.notBefore.nanoseconds(since: now))
      now = redial.notBefore
      #expect(redial.isDue(now))
    }
    #expect(waits[..<4] == [250_000_000, 500_000_000, 1_000_000_000, 2_000_000_000])
    #expect(waits.last == Redial.longest && waits == waits.sorted())
    redial.succeeded()
    var random = SeededNumbers(seed: 1)
    var different: Set<UInt64> = []
    for _ in 0..<100 {
      var copy = redial
      copy.failed(now, random: random.next())
      let wait = copy.notBefore.nanoseconds(since: now)
      #expect((Redial.shortest / 2...Redial.shortest).contains(wait))
      different.insert(wait)
    }
    #expect(different.count > 90, "no jitter")
  }

  /// A destination is dialled again while somebody wants it, and forgotten when nobody does.
  @Test func destinationsAreForgottenWhenNobodyWantsThem() {
    var destinations = Destinations(capacity: 2)
    let begin = MonotonicTime(nanoseconds: 1 << 40)
    func endpoint(_ port: UInt16) -> Endpoint { Endpoint(address: IPAddress(v4: 1), port: port) }
    #expect(
      destinations.place(for: endpoint(1), now: begin) == 0 && destinations.place(for: endpoint(2), now: begin) == 1)
    #expect(
      destinations.place(for: endpoint(3), now: begin) == nil && destinations.place(for: endpoint(1), now: begin) == 0)
    destinations[0].redial.failed(begin, random: 0)
    destinations[1].stream = 7
    #expect(destinations.takeDue(begin) == [])
    #expect(destinations.takeDue(begin.adding(seconds: 1)) == [0])
    #expect(destinations.takeDue(begin.adding(seconds: 20)) == [] && destinations.count == 1)
    #expect(destinations.place(for: endpoint(3), now: begin) == 0)
  }
}
