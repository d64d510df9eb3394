import Foundation
import Host
import Synchronization
import Testing

@testable import Dataplane
@testable import Gateway

@Suite struct ControlSocketTests {
  private static func report(_ workshop: Workshop) throws -> GatewayReport {
    try workshop.usualKeys()
    let file = try workshop.parse(Workshop.good)
    return GatewayReport(file, from: "alpha.yaml", statistics: Figures(file).statistics)
  }

  @Test func answersWhatItIsAsked() async throws {
    let workshop = try Workshop()
    let report = try Self.report(workshop)
    let counter = Counter()
    let server = try ControlServer(path: workshop.file("run/a.sock")) { request in
      switch request.request {
      case .statistics: return ControlReply(report: report)
      case .map: return ControlReply(error: "nothing is mapped here")
      case .explain: return ControlReply(error: "nothing is explained here")
      case .capture, .keys: return ControlReply(error: "nothing is captured here")
      case .reload:
        counter.add()
        return counter.count == 1 ? ControlReply() : ControlReply(error: "alpha.yaml:3: wrong; right it")
      }
    }
    defer { server.stop() }
    let client = ControlClient(path: server.path, patience: 3000)
    #expect(try await blocking { try client.report() } == report)
    #expect(report.peers.map(\.name) == ["beta", "gamma", "delta"])
    try await blocking { try client.reload() }
    let error = await #expect(throws: ControlClient.ReloadRefused.self) {
      try await blocking { try client.reload() }
    }
    #expect(error?.description == "the old configuration stays: alpha.yaml:3: wrong; right it")
    #expect(counter.count == 2)
  }

  /// As another program would: raw lines, several on one connection.
  @Test func speaksLinesOfJSON() async throws {
    let workshop = try Workshop()
    let server = try ControlServer(path: workshop.file("a.sock")) { _ in ControlReply(error: "x") }
    defer { server.stop() }
    #expect(try workshop.mode("a.sock") == 0o600)
    let path = server.path
    let answers = try await blocking {
      let socket = try UnixSocket.connect(path, seconds: 3000)
      let questions = [
        #"{"request":"statistics"}"#, "", #"{"request":"secrets"}"#, #"{"request":"statistics","more":1}"#,
      ]
      return try questions.map { line in
        try UnixSocket.writeLine(socket.raw, Array(line.utf8))
        return String(decoding: try UnixSocket.readLine(socket.raw, limit: 1000) ?? [], as: UTF8.self)
      }
    }
    let known = ControlRequest.Kind.allCases.map(\.rawValue).joined(separator: ", ")
    let unknown = #"{"error":"this is not a known request; known are "# + known + #""}"#
    #expect(answers == [#"{"error":"x"}"#, unknown, unknown, #"{"error":"x"}"#])
  }

  @Test func endlessLinesAreCutOff() async throws {
    let workshop = try Workshop()
    let server = try ControlServer(path: workshop.file("a.sock")) { _ in ControlReply() }
    defer { server.stop() }
    let path = server.path
    let reply = try await blocking {
      let socket = try UnixSocket.connect(path, seconds: 3000)
      // The server closes in the middle, which may show as an error of the write or as the end of the reply.
      try? UnixSocket.writeLine(socket.raw, [UInt8](repeating: 65, count: 1_000_000))
      return (try? UnixSocket.readLine(socket.raw, limit: 100)).flatMap { $0 }
    }
    #expect(reply == nil)
    try await blocking { try ControlClient(path: path, patience: 3000).reload() }
  }

  /// Clients that never finish a question keep nobody from asking.
  @Test func slowClientsBlockNobody() async throws {
    let workshop = try Workshop()
    let server = try ControlServer(path: workshop.file("a.sock")) { _ in ControlReply() }
    defer { server.stop() }
    let path = server.path
    try await blocking {
      var slow: [Int32] = []
      defer { for descriptor in slow { close(descriptor) } }
      for round in 0..<40 {
        let socket = try UnixSocket.connect(path, seconds: 3000)
        try UnixSocket.write(socket.raw, Array("{".utf8))
        slow.append(socket.release())
        // Each time with as many before it as there may be, and more.
        if round > 6 { try ControlClient(path: path, patience: 3000).reload() }
      }
    }
  }

  @Test func aLiveSocketIsRefusedAndAStaleOneReplaced() async throws {
    let workshop = try Workshop()
    let path = workshop.file("a.sock")
    let first = try ControlServer(path: path) { _ in ControlReply() }
    let error = #expect(throws: OperatorError.self) { try ControlServer(path: path) { _ in ControlReply() } }
    #expect(error?.problem == "a gateway answers at \(path) already")
    // Refusing did no harm.
    try await blocking { try ControlClient(path: path, patience: 3000).reload() }
    first.stop()
    #expect(try workshop.names() == [])
    let refusal = #expect(throws: OperatorError.self) { try ControlClient(path: path, patience: 3000).reload() }
    #expect(refusal?.problem == "no gateway answers at \(path)")

    // What a crash leaves: a socket that nobody listens on.
    do { _ = try UnixSocket.listen(path) }
    #expect(try workshop.names() == ["a.sock"])
    // A program that another test starts has a copy until it runs.
    while (try? UnixSocket.connect(path, seconds: 1)) != nil { try await Task.sleep(for: .milliseconds(10)) }
    let leftOver = #expect(throws: OperatorError.self) { try ControlClient(path: path, patience: 3000).reload() }
    #expect(
      leftOver?.description
        == "no gateway answers at \(path): the socket is left over from one that was killed; start that gateway again, "
        + "or remove the socket")
    let second = try ControlServer(path: path) { _ in ControlReply() }
    try await blocking { try ControlClient(path: path, patience: 3000).reload() }
    second.stop()

    try workshop.write("a.sock", "a file of somebody's")
    #expect(throws: OperatorError.self) { try ControlServer(path: path) { _ in ControlReply() } }
    #expect(try workshop.read("a.sock") == "a file of somebody's")
  }

  @Test func stoppingRemovesDirectoriesItMade() throws {
    let workshop = try Workshop()
    let server = try ControlServer(path: workshop.file("x/y/a.sock")) { _ in ControlReply() }
    #expect(try workshop.names() == ["x"])
    server.stop()
    #expect(try workshop.names() == [])
  }

  @Test func pathsTooLongForASocketAreErrors() throws {
    let workshop = try Workshop()
    let path = workshop.file(String(repeating: "x", count: 107))
    #expect(throws: (any Error).self) { try ControlServer(path: path) { _ in ControlReply() } }
    #expect(throws: OperatorError.self) { try ControlClient(path: path, patience: 3000).reload() }
  }
}

final class Counter: Sendable {
  private let value = Mutex(0)
  var count: Int { value.withLock { $0 } }
  func add() { value.withLock { $0 += 1 } }
}
