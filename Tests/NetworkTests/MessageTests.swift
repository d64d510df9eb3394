import Dataplane
import PacketIO
import Testing

/// A reader of a dataplane's messages, who can be asked what has come.
private actor Reader {
  private(set) var messages: [PathMessage] = []
  private var task: Task<Void, Never>?

  func read(_ stream: AsyncStream<PathMessage>) {
    task?.cancel()
    task = Task { for await message in stream { add(message) } }
  }

  private func add(_ message: PathMessage) { messages.append(message) }
}

extension NetworkTests {
  /// Messages of key exchanges go and come along paths that are no peer's.
  @Suite struct MessageTests {
    private static func message(_ number: UInt8, count: Int) -> [UInt8] {
      [UInt8](repeating: number, count: count)
    }

    /// With transport 0, UDP, and 1, TCP: the answer goes back along the path by which the question came.
    @Test(.timeLimit(.minutes(1)), arguments: [UInt8(0), 1])
    func aQuestionIsAnsweredAlongItsPath(transport: UInt8) async throws {
      try await Tunnel.with(.overTCP(), isLossless: false) { tunnel in
        let (asking, answering) = (Reader(), Reader())
        await asking.read(tunnel.a.dataplane.messages())
        await answering.read(tunnel.b.dataplane.messages())
        let endpoint = try #require(TunnelPlan.path(Side.b.outer4))
        let there = Path(transport: transport, endpoint: endpoint)
        let questions = [1, 2, 3, 1400, transport == 0 ? 1000 : 9000].map { Self.message(7, count: $0) }
        // The first one dials, where there is something to dial.
        #expect(
          await eventually {
            tunnel.a.dataplane.send(message: questions[0], along: there)
            return await answering.messages.contains { $0.bytes == questions[0] }
          })
        for question in questions { #expect(tunnel.a.dataplane.send(message: question, along: there)) }
        for question in questions {
          #expect(await eventually { await answering.messages.contains { $0.bytes == question } })
        }
        let back = try #require(await answering.messages.first?.path)
        #expect(back.transport == transport && (back.tag != 0) == (transport == 1))
        for question in questions { tunnel.b.dataplane.send(message: question.map { $0 + 1 }, along: back) }
        for question in questions {
          let answer = PathMessage(path: there, bytes: question.map { $0 + 1 })
          #expect(await eventually { await asking.messages.contains(answer) })
        }
        #expect(await tunnel.b.transport("messages-received") >= 6)
        #expect(await tunnel.b.transport("key-exchange-ignored") == 0)
      }
    }

    @Test(.timeLimit(.minutes(1))) func whatNobodyReadsIsCountedAndDropped() async throws {
      try await Tunnel.with(isLossless: false) { tunnel in
        let endpoint = try #require(TunnelPlan.path(Side.b.outer4))
        let there = Path(endpoint: endpoint)
        tunnel.a.dataplane.send(message: [1], along: there)
        #expect(await eventually { await tunnel.b.transport("key-exchange-ignored") == 1 })
        // Somebody who reads nothing of what waits for him.
        let stream = tunnel.b.dataplane.messages()
        try await Task.sleep(for: .milliseconds(300))
        // No more at once than find room everywhere on the way.
        let before = await tunnel.b.transport("messages-received")
        for number in 0..<300 {
          tunnel.a.dataplane.send(message: Self.message(UInt8(truncatingIfNeeded: number), count: 30), along: there)
          guard number % 10 == 9 else { continue }
          #expect(await eventually { await tunnel.b.transport("messages-received") == before + UInt64(number) + 1 })
        }
        #expect(await eventually { await tunnel.b.dataplane.statistics().lostMessages == 44 })
        var first: [UInt8] = []
        for await message in stream {
          first.append(message.bytes[0])
          if first.count == 256 { break }
        }
        #expect(first == (0..<256).map { UInt8(truncatingIfNeeded: $0) })
        #expect(!tunnel.a.dataplane.send(message: [], along: there))
        #expect(!tunnel.a.dataplane.send(message: Self.message(1, count: PathMessage.longest + 1), along: there))
        #expect(!tunnel.a.dataplane.send(message: [1], along: Path(transport: 9, endpoint: endpoint)))
      }
    }
  }
}
