public import Dataplane
import Foundation
import Glibc
import Host
public import PacketIO

/// Asks a running gateway through its control socket.
public struct ControlClient: Sendable {
  /// Of the socket.
  public let path: String

  /// Seconds an answer may take; a reload waits for the device and the records.
  private let patience: Int
  /// Bytes of the longest answer, enough for ten thousand peers.
  private static let longestReply = 64 << 20

  public init(path: String, patience: Int = 30) {
    self.path = path
    self.patience = patience
  }

  /// - Throws: `OperatorError` when nobody answers or the gateway refuses.
  public func ask(_ request: ControlRequest) throws -> ControlReply {
    let line: [UInt8]?
    do {
      let socket = try UnixSocket.connect(path, seconds: patience)
      try UnixSocket.writeLine(socket.raw, Array(try JSONEncoder().encode(request)))
      line = try UnixSocket.readLine(socket.raw, limit: ControlClient.longestReply)
    } catch let error as SystemError {
      throw refusal(error)
    }
    guard let line, let reply = try? JSONDecoder().decode(ControlReply.self, from: Data(line)) else {
      throw OperatorError("\(path) does not answer as a gateway does", remedy: "check that it is a gateway's socket")
    }
    return reply
  }

  public func report() throws -> GatewayReport {
    let reply = try ask(ControlRequest(.statistics))
    guard let report = reply.report else {
      throw OperatorError("\(path): \(reply.error ?? "no statistics")", remedy: "see the gateway's log")
    }
    return report
  }

  /// Returns when the gateway has its file's new contents in force.
  public func reload() throws {
    if let error = try ask(ControlRequest(.reload)).error { throw ReloadRefused(reason: error) }
  }

  /// The gateway goes on as before.
  public struct ReloadRefused: Error, CustomStringConvertible {
    /// As the gateway logged it; several lines where a file has several problems.
    public let reason: String
    public var description: String { "the old configuration stays: \(reason)" }
  }

  /// What an address is called on either side of each tunnel.
  public func meanings(of address: IPAddress) throws -> [AddressMeaning] {
    let reply = try ask(ControlRequest(.map, address: "\(address)"))
    guard let meanings = reply.meanings else {
      throw OperatorError("\(path): \(reply.error ?? "no answer")", remedy: "see the gateway's log")
    }
    return meanings
  }

  /// Keys of all associations, as lines of the file that tells tshark.
  public func keys() throws -> [String] {
    let reply = try ask(ControlRequest(.keys))
    guard let keys = reply.keys else {
      throw OperatorError("\(path): \(reply.error ?? "no answer")", remedy: "see the gateway's log")
    }
    return keys
  }

  /// Captures packets until the gateway has no more, or `isOver` says so.
  /// - Parameter write: gets the bytes of a pcapng file, whole blocks.
  /// - Returns: how many packets found no room in the gateway's buffer.
  public func capture(
    _ options: CaptureOptions, until isOver: () -> Bool, write: ([UInt8]) throws -> Void
  ) throws -> UInt64 {
    do {
      let socket = try UnixSocket.connect(path, seconds: patience)
      try UnixSocket.writeLine(
        socket.raw, Array(try JSONEncoder().encode(ControlRequest(.capture, capture: options))))
      // One byte at a time: behind the line the file begins.
      var line: [UInt8] = []
      while let byte = try UnixSocket.read(socket.raw, limit: 1), byte != [UInt8(ascii: "\n")] { line += byte }
      guard let reply = try? JSONDecoder().decode(ControlReply.self, from: Data(line)) else {
        throw OperatorError("\(path) does not answer as a gateway does", remedy: "check that it is a gateway's socket")
      }
      if let error = reply.error { throw OperatorError("\(path): \(error)", remedy: "see 'culvert capture --help'") }
      return try copy(socket.raw, until: isOver, write: write)
    } catch let error as SystemError {
      throw refusal(error)
    }
  }

  private func copy(_ socket: Int32, until isOver: () -> Bool, write: ([UInt8]) throws -> Void) throws -> UInt64 {
    UnixSocket.setTimeLimit(socket, milliseconds: 100)
    var rest: [UInt8] = []
    var lost: UInt64 = 0
    var end: MonotonicTime?
    while end.map({ MonotonicTime.current() < $0 }) ?? true {
      if end == nil, isOver() {
        UnixSocket.endSending(socket)
        end = MonotonicTime.current().adding(seconds: 3)
      }
      do throws(SystemError) {
        guard let bytes = try UnixSocket.read(socket, limit: 1 << 18) else { break }
        rest += bytes
      } catch {
        guard error.errno == EAGAIN else { throw error }
        continue
      }
      // Half a block would spoil the file for those who read it.
      var whole = 0
      while rest.count - whole >= 8 {
        let length = (0..<4).reduce(0) { $0 | Int(rest[whole + 4 + $1]) << (8 * $1) }
        guard length >= 12, rest.count - whole >= length else { break }
        if rest[whole] == 5, length >= 36 {
          lost = (0..<8).reduce(0) { $0 | UInt64(rest[whole + 24 + $1]) << UInt64(8 * $1) }
        }
        whole += length
      }
      if whole > 0 { try write(Array(rest[..<whole])) }
      rest.removeFirst(whole)
    }
    return lost
  }

  /// What would become of a packet inside the tunnel.
  public func explain(_ packet: [UInt8]) throws -> Explanation {
    let reply = try ask(ControlRequest(.explain, packet: packet))
    guard let explanation = reply.explanation else {
      throw OperatorError("\(path): \(reply.error ?? "no answer")", remedy: "see the gateway's log")
    }
    return explanation
  }

  private func refusal(_ error: SystemError) -> OperatorError {
    switch error.errno {
    case ENOENT: OperatorError("no gateway answers at \(path)", remedy: "start it with 'culvert gateway --config FILE'")
    case ECONNREFUSED:
      OperatorError(
        "no gateway answers at \(path): the socket is left over from one that was killed",
        remedy: "start that gateway again, or remove the socket")
    case EACCES, EPERM:
      OperatorError("\(path) belongs to another user", remedy: "run as the user the gateway runs as")
    default:
      OperatorError("\(path): \(error.reason)", remedy: "see the gateway's log")
    }
  }

  /// The sockets in the usual directory, one for each gateway that runs, or ran and crashed.
  public static func sockets(in directory: String = GatewayPlan.controlDirectory) -> [String] {
    PosixFile.names(in: directory).filter { $0.hasSuffix(".sock") }.map { "\(directory)/\($0)" }
  }
}
