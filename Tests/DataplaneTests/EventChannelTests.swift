import PacketIO
import Testing

@testable import Dataplane

/// Events to the embedder: of each subject the newest is kept and never lost; of the rest only so many, and what did
/// not fit is counted.
@Suite struct EventChannelTests {
  private func error(_ number: Int) -> Event {
    .transportError(transport: number, path: .path(1), error: SystemError("send", errno: 1))
  }

  /// What waits, without waiting for more.
  private func drain(_ channel: EventChannel) async -> [Event] {
    channel.end()
    var events: [Event] = []
    for await event in EventStream(channel: channel) { events.append(event) }
    return events
  }

  @Test func eventsComeInOrder() async {
    let channel = EventChannel()
    let sent: [Event] = [.configurationApplied(peers: 1), error(1), .pathChanged(peer: "a", path: .path(1)), error(2)]
    for event in sent { channel.send(event) }
    #expect(await drain(channel) == sent)
    #expect(channel.lost == 0)
  }

  @Test func ofASubjectTheNewestIsKept() async {
    let channel = EventChannel()
    for number in 1...1000 {
      channel.send(.configurationApplied(peers: number))
      channel.send(.pathChanged(peer: "a", path: .path(number % 200)))
      channel.send(.pathChanged(peer: "b", path: .path(number % 100)))
      channel.send(.sequenceNumbersRunningOut(peer: "a", spi: 1, remaining: UInt64(number)))
    }
    #expect(
      await drain(channel) == [
        .configurationApplied(peers: 1000), .pathChanged(peer: "a", path: .path(0)),
        .pathChanged(peer: "b", path: .path(0)), .sequenceNumbersRunningOut(peer: "a", spi: 1, remaining: 1000),
      ])
    #expect(channel.lost == 0)
  }

  /// Start, failure and end each happen once, and none may hide another.
  @Test func aFailureIsNotHiddenByTheStopThatFollows() async {
    let channel = EventChannel()
    let started = Event.started(interface: "tun0", engine: .openSSL, offloads: .all, refusedOffloads: [])
    let failed = Event.failed(SystemError("read the TUN device tun0", errno: 5))
    for event in [started, failed, .stopped] { channel.send(event) }
    #expect(await drain(channel) == [started, failed, .stopped])
  }

  @Test func rateEventsThatDoNotFitAreCounted() async {
    let channel = EventChannel()
    for number in 0..<100 { channel.send(error(number)) }
    channel.send(.configurationApplied(peers: 3))
    #expect(channel.lost == 36)
    var iterator = EventStream(channel: channel).makeAsyncIterator()
    #expect(await iterator.next() == error(0))
    // Room for one more.
    channel.send(error(100))
    channel.send(error(101))
    #expect(channel.lost == 37)
    #expect(await drain(channel) == (1..<64).map(error) + [.configurationApplied(peers: 3), error(100)])
  }

  @Test func aReaderThatWaitsGetsTheNextEvent() async {
    let channel = EventChannel()
    let reader = Task { await channel.next() }
    while !channel.hasReader { await Task.yield() }
    channel.send(error(7))
    #expect(await reader.value == error(7))
    #expect(await drain(channel) == [])
  }

  @Test func theEndReachesAReaderThatWaitsAndThoseAfter() async {
    let channel = EventChannel()
    let reader = Task { await channel.next() }
    while !channel.hasReader { await Task.yield() }
    channel.end()
    #expect(await reader.value == nil)
    channel.send(error(1))
    #expect(await channel.next() == nil)
  }

  @Test func aCancelledReaderStopsAndLosesNothing() async {
    let channel = EventChannel()
    let reader = Task { await channel.next() }
    while !channel.hasReader { await Task.yield() }
    reader.cancel()
    #expect(await reader.value == nil)
    channel.send(error(1))
    #expect(await channel.next() == error(1))
    // One that was cancelled before it began takes nothing and does not disturb the one that waits.
    let patient = Task { await channel.next() }
    while !channel.hasReader { await Task.yield() }
    let cancelled = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return await channel.next()
    }
    #expect(await cancelled.value == nil)
    #expect(channel.hasReader)
    channel.send(error(2))
    #expect(await patient.value == error(2))
  }

  /// From several threads, with a reader that comes and goes: every rate event is read or counted as lost.
  @Test func nothingIsLostUncounted() async {
    let channel = EventChannel()
    let perSender = 2000
    let reader = Task {
      var read: [Int: [Int]] = [:]
      for await event in EventStream(channel: channel) {
        if case .transportError(let number, _, _, _) = event { read[number / 10_000, default: []].append(number) }
      }
      return read
    }
    await withTaskGroup(of: Void.self) { group in
      for sender in 0..<3 {
        group.addTask { for number in 0..<perSender { channel.send(error(sender * 10_000 + number)) } }
      }
    }
    channel.end()
    let read = await reader.value
    #expect(read.values.reduce(0) { $0 + $1.count } + Int(channel.lost) == 3 * perSender)
    for numbers in read.values { #expect(numbers == numbers.sorted(), "out of order") }
  }

  /// Against a list that is looked through.
  @Test(arguments: 0..<4 as Range<UInt64>)
  func theQueueAgreesWithAList(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    var queue = EventQueue()
    var oracle: [Event] = []
    for step in 0..<3000 {
      // It grows, and is emptied now and then.
      if Int.random(in: 0..<10, using: &numbers) < (step / 300 % 2 == 0 ? 3 : 7) {
        #expect(queue.popFirst() == (oracle.isEmpty ? nil : oracle.removeFirst()))
      } else {
        let number = Int.random(in: 0..<40, using: &numbers)
        let event: Event = number < 8 ? error(step) : .pathChanged(peer: "p\(number)", path: .path(step % 200))
        if let subject = event.subject { oracle.removeAll { $0.subject == subject } }
        oracle.append(event)
        queue.append(event)
      }
      #expect(queue.count == oracle.count)
      #expect(queue.rateEvents == oracle.count { $0.subject == nil })
    }
    while let event = queue.popFirst() { #expect(event == oracle.removeFirst()) }
    #expect(oracle.isEmpty)
  }
}
