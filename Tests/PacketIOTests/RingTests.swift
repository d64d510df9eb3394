import Glibc
import PacketIO
import Testing

/// The ring, with each set of features an older kernel might have.
@Suite struct RingTests {
  static let kernels: [RingFeatures] = [
    .all, [.bufferRings, .multishotReceive, .multishotRead], [.deferredTaskRun, .bufferRings], [.deferredTaskRun], [],
  ]

  @Test func tokensKeepTheirParts() {
    for (owner, kind, value) in [(0, 0, 0), (255, 255, 0xFFFF_FFFF_FFFF), (1, 2, 3), (16, 0xFF, 1 << 47)]
      as [(UInt8, UInt8, Int)]
    {
      let token = Token(owner: owner, kind: kind, value: value)
      #expect(token.owner == owner && token.kind == kind && token.value == value)
      #expect(Token(raw: token.raw) == token)
    }
    // What does not fit must not reach the other parts.
    let token = Token(owner: 1, kind: 2, value: -1)
    #expect(token.owner == 1 && token.kind == 2)
  }

  @Test func completionFlags() {
    #expect(Completion(token: Token(raw: 0), result: 0, flags: 2).more)
    #expect(!Completion(token: Token(raw: 0), result: 0, flags: 0).more)
    #expect(Completion(token: Token(raw: 0), result: 0, flags: 0xABCD_0001).buffer == 0xABCD)
    #expect(Completion(token: Token(raw: 0), result: 0, flags: 0xABCD_0000).buffer == nil)
  }

  @Test(arguments: kernels)
  func featuresAreNoMoreThanAllowed(allowed: RingFeatures) throws {
    let ring = try Ring(entries: 8, allowed: allowed)
    let features = ring.features
    #expect(features.isSubset(of: allowed))
    // Without the buffers there is nothing to receive into more than once.
    if !features.contains(.bufferRings) {
      #expect(features.isDisjoint(with: [.multishotReceive, .multishotRead]))
    }
  }

  /// More submissions than the queue has places, and a wait that ends by time.
  @Test(arguments: kernels)
  func readsCompleteUnderTheirTokens(allowed: RingFeatures) throws {
    var ring = try Ring(entries: 4, allowed: allowed)
    ring.activate()
    let waker = try Waker()
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
    defer { memory.deallocate() }
    for value in 0..<3 {
      ring.read(RingFile(waker.descriptor), into: memory, count: 8, token: Token(owner: 9, kind: 1, value: value))
      waker.wake()
      waker.wake()
      ring.submitAndWait(nanoseconds: 1_000_000_000)
      let next = ring.nextCompletion()
      let completion = try #require(next)
      #expect(completion.token == Token(owner: 9, kind: 1, value: value) && completion.result == 8)
      #expect(memory.load(as: UInt64.self) == 2)
    }
    let left = ring.hasCompletions
    #expect(!left)
    let before = MonotonicTime.current()
    ring.submitAndWait(nanoseconds: 20_000_000)
    #expect(MonotonicTime.current().nanoseconds(since: before) >= 19_000_000)
    let none = ring.nextCompletion()
    #expect(none == nil)

    for value in 0..<40 {
      ring.read(RingFile(-1), into: memory, count: 8, token: Token(owner: 9, kind: 2, value: value))
    }
    var seen: Set<Int> = []
    while seen.count < 40 {
      ring.submitAndWait(nanoseconds: 1_000_000_000)
      guard let first = ring.nextCompletion() else { break }
      var next: Completion? = first
      while let completion = next {
        #expect(completion.result == -EBADF)
        seen.insert(completion.token.value)
        next = ring.nextCompletion()
      }
    }
    #expect(seen.count == 40)
  }

  @Test(arguments: kernels)
  func aReadThatWaitsIsCancelled(allowed: RingFeatures) throws {
    var ring = try Ring(entries: 8, allowed: allowed)
    ring.activate()
    let waker = try Waker()
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
    defer { memory.deallocate() }
    let target = Token(owner: 1, kind: 1)
    ring.read(RingFile(waker.descriptor), into: memory, count: 8, token: target)
    ring.submitAndWait(nanoseconds: 0)
    let early = ring.hasCompletions
    #expect(!early)
    ring.cancel(target, token: Token(owner: 1, kind: 2))
    var results: [Token: Int32] = [:]
    while results.count < 2 {
      ring.submitAndWait(nanoseconds: 1_000_000_000)
      guard let completion = ring.nextCompletion() else { break }
      results[completion.token] = completion.result
    }
    #expect(results == [target: -ECANCELED, Token(owner: 1, kind: 2): 0])
  }

  /// A descriptor that keeps message boundaries, as a TUN device does: everything sent arrives, once and in order,
  /// also when the kernel's buffers run dry in between.
  @Test(arguments: kernels)
  func aReceiverGetsEveryMessage(allowed: RingFeatures) throws {
    var ends: [Int32] = [0, 0]
    let type = Int32(SOCK_SEQPACKET.rawValue | SOCK_NONBLOCK.rawValue)
    try #require(socketpair(AF_UNIX, type, 0, &ends) == 0)
    defer { for end in ends { close(end) } }
    var io = WorkerIO(ring: try Ring(entries: 16, allowed: allowed), pool: BufferPool(count: 6), now: .current())
    io.ring.activate()
    let receiver = Receiver(
      ends[0], kind: .stream, group: 1, capacity: 4, token: Token(owner: 1, kind: 1), io: &io)
    var received: [[UInt8]] = []
    var sent = 0
    while received.count < 50 {
      receiver.rearm(io: &io)
      for _ in 0..<7 where sent < 50 {
        let message = [UInt8](repeating: UInt8(sent), count: 1 + sent * 100)
        if send(ends[1], message, message.count, 0) == message.count { sent += 1 }
      }
      io.ring.submitAndWait(nanoseconds: 1_000_000_000)
      guard io.ring.hasCompletions else {
        Issue.record("only \(received.count) of \(sent) arrived")
        break
      }
      while let completion = io.ring.nextCompletion() {
        var error: Int32 = 0
        if let message = receiver.accept(completion, io: &io, error: &error) {
          #expect(message.offset >= BufferPool.headroom)
          received.append(io.pool.bytes(message.buffer).slice(message.offset, message.length).array())
          io.pool.release(message.buffer)
        }
        #expect(error == 0)
      }
    }
    #expect(received == (0..<50).map { [UInt8](repeating: UInt8($0), count: 1 + $0 * 100) })

    receiver.rearm(io: &io)
    receiver.close(io: &io)
    var ended = false
    for _ in 0..<10 where !ended {
      io.ring.submitAndWait(nanoseconds: 100_000_000)
      while let completion = io.ring.nextCompletion() {
        var error: Int32 = 0
        let message = receiver.accept(completion, io: &io, error: &error)
        #expect(message == nil)
        if completion.result == -ECANCELED { ended = true }
      }
    }
    #expect(ended)
  }

  @Test func aDescriptorThatFailsIsReported() throws {
    for allowed in Self.kernels {
      var io = WorkerIO(ring: try Ring(entries: 16, allowed: allowed), pool: BufferPool(count: 6), now: .current())
      io.ring.activate()
      let receiver = Receiver(-1, kind: .stream, group: 1, capacity: 4, token: Token(owner: 1, kind: 1), io: &io)
      receiver.rearm(io: &io)
      io.ring.submitAndWait(nanoseconds: 1_000_000_000)
      let next = io.ring.nextCompletion()
      let completion = try #require(next)
      var error: Int32 = 0
      let message = receiver.accept(completion, io: &io, error: &error)
      #expect(message == nil)
      #expect(error == EBADF)
    }
  }

  @Test func eventsAreBounded() throws {
    var io = WorkerIO(ring: try Ring(entries: 8), pool: BufferPool(count: 1), now: .current())
    let path = Path(endpoint: Endpoint(address: IPAddress(v4: 1), port: 2))
    for error in 1...100 as ClosedRange<Int32> { io.report(.failed(error), path) }
    let first = io.takeEvents().map(\.error)
    let second = io.takeEvents()
    #expect(first == Array(1...16))
    #expect(second.isEmpty)
  }
}

extension RingFeatures: CustomTestStringConvertible {
  public var testDescription: String {
    let names: [(RingFeatures, String)] = [
      (.deferredTaskRun, "deferred"), (.bufferRings, "buffer rings"), (.multishotReceive, "multishot receive"),
      (.multishotRead, "multishot read"),
    ]
    return names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
  }
}
