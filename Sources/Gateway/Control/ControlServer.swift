import Foundation
import Glibc
import Host
import PacketIO
import Synchronization

/// Answers questions on a Unix socket that only this user can reach.
///
/// Each connection has a thread for as long as it lasts; there are few, and each is cut off after a time limit. When
/// there are too many, the one that has waited longest for its client goes.
final class ControlServer: Sendable {
  let path: String
  private let listener: Int32
  private let waker: Waker
  private let created: [String]
  private let inode: UInt64
  /// The oldest first.
  private let connections = Mutex<[Connection]>([])
  private let isStopped = Mutex(false)
  private let stream: @Sendable (ControlRequest) async throws -> CaptureStream

  private struct Connection {
    let descriptor: Int32
    /// A question of its is being answered.
    var isBusy = false
  }

  private static let mostConnections = 8
  private static let seconds = 5

  /// Starts to answer. A socket that nobody listens on any more is replaced.
  /// - Throws: `OperatorError` when somebody does listen there; `SystemError`.
  /// - Parameter stream: what follows the answer to a request for a capture.
  init(
    path: String, answer: @escaping @Sendable (ControlRequest) async -> ControlReply,
    stream: @escaping @Sendable (ControlRequest) async throws -> CaptureStream = { _ in
      throw OperatorError("nothing is captured here", remedy: "ask a gateway")
    }
  ) throws {
    self.path = path
    self.stream = stream
    waker = try Waker()
    created = try PosixFile.createDirectories(PosixFile.directory(of: path))
    do {
      try ControlServer.removeStale(path)
      let socket = try UnixSocket.listen(path)
      inode = try FileStatus(of: path).inode
      listener = socket.release()
    } catch {
      PosixFile.removeEmptyDirectories(created)
      throw error
    }
    let thread = Thread { [self] in
      while let connection = accept() { serve(connection, answer) }
      close(listener)
    }
    thread.name = "control"
    thread.start()
  }

  /// Stops listening and removes the socket. Answers under way are finished.
  func stop() {
    let wasStopped = isStopped.withLock { stopped in
      defer { stopped = true }
      return stopped
    }
    guard !wasStopped else { return }
    // Not the socket of somebody who has taken the place.
    if (try? FileStatus(of: path))?.inode == inode { try? PosixFile.remove(path) }
    PosixFile.removeEmptyDirectories(created)
    waker.wake()
  }

  private static func removeStale(_ path: String) throws {
    guard let status = try? FileStatus(of: path) else { return }
    guard status.isSocket else {
      throw OperatorError("\(path) exists and is not a socket", remedy: "remove it, or set another 'control' path")
    }
    do {
      _ = try UnixSocket.connect(path, seconds: 1)
    } catch {
      guard error.errno == ECONNREFUSED || error.errno == ENOENT else { throw error }
      try PosixFile.remove(path)
      return
    }
    throw OperatorError(
      "a gateway answers at \(path) already",
      remedy: "stop it first, or give this one another 'name' or 'control' path")
  }

  /// The next connection; nil when the server stops.
  private func accept() -> Int32? {
    while true {
      let ready = UnixSocket.waitUntilReadable([listener, waker.descriptor])
      if ready[1] { return nil }
      guard ready[0] else { continue }
      let connection = UnixSocket.accept(listener)
      if connection >= 0 { return connection }
      // Out of descriptors, most likely: not a reason to spin.
      usleep(100_000)
    }
  }

  private func serve(_ connection: Int32, _ answer: @escaping @Sendable (ControlRequest) async -> ControlReply) {
    UnixSocket.setTimeLimit(connection, seconds: ControlServer.seconds)
    guard makeRoom(for: connection) else {
      close(connection)
      return
    }
    Thread { [self] in
      while let line = try? UnixSocket.readLine(connection, limit: ControlRequest.longest) {
        setBusy(connection, true)
        if let request = try? JSONDecoder().decode(ControlRequest.self, from: Data(line)), request.request == .capture {
          sendCapture(request, to: connection)
          break
        }
        let reply = ControlServer.reply(to: line, answer)
        guard (try? UnixSocket.writeLine(connection, reply)) != nil else { break }
        setBusy(connection, false)
      }
      // Under the lock: nobody else may mean another connection by this number.
      connections.withLock { connections in
        connections.removeAll { $0.descriptor == connection }
        close(connection)
      }
    }.start()
  }

  /// False when all are busy.
  private func makeRoom(for connection: Int32) -> Bool {
    connections.withLock { connections in
      if connections.count >= ControlServer.mostConnections {
        guard let idle = connections.firstIndex(where: { !$0.isBusy }) else { return false }
        // Its thread wakes up and closes it.
        UnixSocket.end(connections.remove(at: idle).descriptor)
      }
      connections.append(Connection(descriptor: connection))
      return true
    }
  }

  private func setBusy(_ connection: Int32, _ isBusy: Bool) {
    connections.withLock { connections in
      guard let index = connections.firstIndex(where: { $0.descriptor == connection }) else { return }
      connections[index].isBusy = isBusy
    }
  }

  /// Sends a capture until it is over, the client goes away, or the server stops.
  private func sendCapture(_ request: ControlRequest, to connection: Int32) {
    let begun = ControlServer.wait { [stream] () -> Result<CaptureStream, any Error> in
      do { return .success(try await stream(request)) } catch { return .failure(error) }
    }
    let stream: CaptureStream
    switch begun {
    case .success(let capture): stream = capture
    case .failure(let error):
      try? UnixSocket.writeLine(connection, ControlServer.encode(ControlReply(error: "\(error)")))
      return
    }
    defer { stream.end() }
    guard (try? UnixSocket.writeLine(connection, ControlServer.encode(ControlReply()))) != nil else { return }
    while let bytes = stream.take() {
      if bytes.isEmpty {
        usleep(20_000)
      } else if (try? UnixSocket.write(connection, bytes)) == nil {
        return
      }
      // Who has had enough closes its half, and still gets the file's end.
      if UnixSocket.isClosed(connection) || isStopped.withLock({ $0 }) { stream.end() }
    }
  }

  /// Waits on this thread for what is made elsewhere.
  private static func wait<Value: Sendable>(_ make: @escaping @Sendable () async -> Value) -> Value {
    let slot = Slot<Value>()
    Task { slot.fill(await make()) }
    return slot.take()
  }

  private final class Slot<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    private let isFilled = DispatchSemaphore(value: 0)

    func fill(_ value: Value) {
      self.value.withLock { $0 = value }
      isFilled.signal()
    }

    func take() -> Value {
      while true {
        isFilled.wait()
        if let value = value.withLock({ $0 }) { return value }
      }
    }
  }

  /// Waits on this thread for an answer that is made elsewhere.
  private static func reply(
    to line: [UInt8], _ answer: @escaping @Sendable (ControlRequest) async -> ControlReply
  ) -> [UInt8] {
    guard let request = try? JSONDecoder().decode(ControlRequest.self, from: Data(line)) else {
      let known = ControlRequest.Kind.allCases.map(\.rawValue).joined(separator: ", ")
      return encode(ControlReply(error: "this is not a known request; known are \(known)"))
    }
    return encode(wait { await answer(request) })
  }

  private static func encode(_ reply: ControlReply) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return (try? encoder.encode(reply)).map { Array($0) } ?? Array(#"{"error":"the answer cannot be written"}"#.utf8)
  }
}

/// A capture that somebody reads.
struct CaptureStream: Sendable {
  /// The file's next bytes, whole blocks; nothing while there are none; nil when it is over.
  let take: @Sendable () -> [UInt8]?
  /// Ends it. May be called more than once.
  let end: @Sendable () -> Void
}
