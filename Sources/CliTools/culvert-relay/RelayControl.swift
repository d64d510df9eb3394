import Foundation
import Glibc
import Host
import PacketIO
import Relay
import Synchronization
import Transports

/// Answers on a Unix socket that only this user can reach: a line for a line, once for each connection.
final class RelayControl: Sendable {
  /// What is asked for.
  enum Request: Sendable {
    /// Everything, as JSON.
    case show
    /// Who holds how much of what all share, as JSON.
    case shares
    /// That a signed policy update is put in force.
    case update([UInt8])

    /// As a line.
    fileprivate var line: [UInt8] {
      switch self {
      case .show: Array("show".utf8)
      case .shares: Array("shares".utf8)
      case .update(let bytes): Array("update ".utf8) + Base64.text(of: bytes)
      }
    }

    fileprivate init?(_ line: [UInt8]) {
      if line == Array("show".utf8) {
        self = .show
      } else if line == Array("shares".utf8) {
        self = .shares
      } else if line.starts(with: Array("update ".utf8)), let bytes = Base64.decode(text: Array(line.dropFirst(7))) {
        self = .update(bytes)
      } else {
        return nil
      }
    }
  }

  /// What became of an update.
  struct Taken: Codable {
    /// The policy's; nil: it was not taken.
    var number: UInt64?
    var problem: String?
    var remedy: String?
  }

  private let path: String
  private let listener: Int32
  private let waker: Waker
  private let isStopped = Mutex(false)
  private static let seconds = 5
  /// Bytes of the longest question, an update in base64; and of the longest answer: tens of thousands of pairs.
  private static let longestQuestion = PolicyUpdate.mostBytes / 3 * 4 + 64
  private static let longestAnswer = 64 << 20

  /// Asks a relay, and waits for its answer.
  static func ask(_ request: Request, at path: String) throws -> [UInt8] {
    let socket: Descriptor
    do throws(SystemError) {
      socket = try UnixSocket.connect(path, seconds: 10)
    } catch {
      throw OperatorError(
        "no relay answers at \(path): \(error.reason)",
        remedy: "start it, or name with --control what its file has as 'control'")
    }
    try UnixSocket.writeLine(socket.raw, request.line)
    guard let line = try UnixSocket.readLine(socket.raw, limit: longestAnswer) else {
      throw OperatorError("the relay at \(path) has said nothing", remedy: "see its log")
    }
    return line
  }

  /// Starts to answer. A socket that nobody listens on any more is replaced.
  init(path: String, answer: @escaping @Sendable (Request) -> [UInt8]) throws {
    self.path = path
    waker = try Waker()
    if (try? FileStatus(of: path))?.isSocket == true {
      if (try? UnixSocket.connect(path, seconds: 1)) != nil {
        throw OperatorError(
          "a relay answers at \(path) already", remedy: "stop it first, or set another 'control' path")
      }
      try PosixFile.remove(path)
    }
    listener = try UnixSocket.listen(path).release()
    Acceptor.start("control", listener, until: waker, seconds: RelayControl.seconds) { connection in
      guard let line = try? UnixSocket.readLine(connection, limit: RelayControl.longestQuestion),
        let request = Request(line)
      else { return }
      try? UnixSocket.writeLine(connection, answer(request))
    }
  }

  /// Waits on this thread until somebody else's has answered.
  static func wait<Answer: Sendable>(_ ask: (@escaping @Sendable (Answer) -> Void) -> Void) -> Answer? {
    let reply = Reply<Answer>()
    ask { answer in
      reply.answer.withLock { $0 = answer }
      reply.done.signal()
    }
    reply.done.wait()
    return reply.answer.withLock { $0 }
  }

  /// An answer on its way from one thread to another.
  private final class Reply<Answer: Sendable>: Sendable {
    let answer = Mutex<Answer?>(nil)
    let done = DispatchSemaphore(value: 0)
  }

  /// Stops listening and removes the socket.
  func stop() {
    let wasStopped = isStopped.withLock { stopped in
      defer { stopped = true }
      return stopped
    }
    guard !wasStopped else { return }
    try? PosixFile.remove(path)
    waker.wake()
  }
}
