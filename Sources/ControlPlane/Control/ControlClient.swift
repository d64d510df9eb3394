public import Dataplane
import Foundation
import Glibc
public import PacketIO

/// Asks a running gateway through its control socket.
public struct ControlClient: Sendable {
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

  private func refusal(_ error: SystemError) -> OperatorError {
    switch error.errno {
    case ENOENT, ECONNREFUSED:
      OperatorError("no gateway answers at \(path)", remedy: "start it with 'culvert gateway --config FILE'")
    case EACCES, EPERM:
      OperatorError("\(path) belongs to another user", remedy: "run as the user the gateway runs as")
    default:
      OperatorError("\(path): \(error.reason)", remedy: "see the gateway's log")
    }
  }

  /// The sockets in the usual directory, one for each gateway that runs, or ran and crashed.
  public static func sockets(in directory: String = GatewayFile.controlDirectory) -> [String] {
    PosixFile.names(in: directory).filter { $0.hasSuffix(".sock") }.map { "\(directory)/\($0)" }
  }
}
