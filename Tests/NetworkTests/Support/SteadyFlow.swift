import Glibc
import Synchronization

@testable import Lab

/// A flow that never rests, in packets as large as they may be, and the longest time in which nothing of it arrived.
final class SteadyFlow: Sendable {
  struct Result: Sendable {
    var bytes = 0
    /// Seconds between two arrivals, at most.
    var longestGap = 0.0
  }

  let name: String
  private let sender: LabThread<Void>
  private let receiver: LabThread<Result>
  private let over = Shared(Atomic(false))

  /// Bytes of a datagram: with headers of either family just below the MTU of 1400.
  private static let datagram = 1340
  private static let interval = 0.02

  init(_ kind: Socket.Kind, from: Namespace, to: Namespace, _ address: String) throws {
    name = "\(kind) to \(address)"
    let endpoint = try Lab.Endpoint(address, port: 0)
    let listener = try to.inside { () throws -> Socket in
      let socket = try Socket(kind, isV6: endpoint.isV6)
      try socket.bind(endpoint)
      if kind == .stream { try socket.listen() }
      try socket.setTimeout(kind == .stream ? 10 : 0.05)
      return socket
    }
    let port = listener.port
    let connected = try from.inside { () throws -> Socket in
      let socket = try Socket(kind, isV6: endpoint.isV6)
      try socket.setTimeout(10)
      try socket.connect(Lab.Endpoint(address, port: port))
      return socket
    }
    let incoming = kind == .stream ? try listener.accept() : listener
    try incoming.setTimeout(0.05)
    let over = over
    sender = LabThread(name: "steady out") {
      let buffer = LabBuffer(count: 2 * SteadyFlow.datagram)
      let count = kind == .stream ? buffer.count : SteadyFlow.datagram
      while !over.value.load(ordering: .acquiring) {
        // A datagram that does not fit is refused with an error once; the next one is cut by the kernel.
        _ = connected.send(buffer, 0, count)
        pause(seconds: SteadyFlow.interval)
      }
    }
    receiver = LabThread(name: "steady in") {
      let buffer = LabBuffer(count: 1 << 16)
      var result = Result()
      var last = monotonicSeconds()
      while !over.value.load(ordering: .acquiring) {
        let n = incoming.receive(buffer)
        let now = monotonicSeconds()
        result.longestGap = max(result.longestGap, now - last)
        guard n > 0 else { continue }
        result.bytes += n
        last = now
      }
      return result
    }
  }

  deinit { over.value.store(true, ordering: .releasing) }

  func finish() async throws -> Result {
    over.value.store(true, ordering: .releasing)
    try await sender.value
    return try await receiver.value
  }
}
