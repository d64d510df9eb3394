import Glibc
import Host
import PacketIO
import Relay
import Transports

/// What a start would open, tried without leaving anything behind, beside a relay that may be running. Nil: it would succeed.
enum Rehearsal {
  static func usedTickets(_ path: String) -> OperatorError? {
    do throws(OperatorError) {
      _ = try UsedTickets.kept(path, now: 0)
    } catch {
      return error
    }
    return creating(path, remedy: UsedTickets.remedy)
  }

  static func appending(to path: String) -> OperatorError? {
    let remedy = "name a file that can be written"
    if path == "-" { return nil }
    do throws(SystemError) {
      _ = try Descriptor(open: path, O_WRONLY | O_APPEND | O_NONBLOCK)
      return nil
    } catch {
      if error.errno == ENOENT { return creating(path, remedy: remedy) }
      return OperatorError("\(path) cannot be written: \(error.reason)", remedy: remedy)
    }
  }

  static func listening(at path: String) -> OperatorError? {
    if let status = try? FileStatus(of: path), !status.isSocket {
      return OperatorError("\(path) is there, and no socket", remedy: "name a path where there is nothing yet")
    }
    return nil
  }

  /// The port itself may be that of a relay that runs.
  static func listening(on endpoint: Endpoint) -> OperatorError? {
    let listener = TCPSocket.listen(Endpoint(address: endpoint.address, port: 0))
    guard listener < 0 else {
      close(listener)
      return nil
    }
    return OperatorError(
      "nothing can listen on \(endpoint.address): \(SystemError("listen", errno: -listener).reason)",
      remedy: "name an address of this machine")
  }

  private static func creating(_ path: String, remedy: String) -> OperatorError? {
    let reason = PosixFile.obstacle(toCreating: path)
    guard reason != 0 else { return nil }
    return OperatorError(
      "\(path) cannot be created: \(SystemError("create", errno: reason).reason)", remedy: remedy)
  }
}
