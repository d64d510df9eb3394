import CLinux
import Glibc
import Synchronization

@testable import Lab

/// Sits between two gateways that take it for each other, and decides what becomes of each sealed datagram:
/// ```
/// a: 192.0.2.1 ═══ 192.0.2.254 :interceptor: 198.51.100.254 ═══ 198.51.100.2 :b
/// ```
final class Interceptor: Sendable {
  static let topology = Topology(
    nodes: ["a", "m", "b"],
    wires: [
      Topology.Wire(.init("a", "wire", ["192.0.2.1/24"]), .init("m", "left", ["192.0.2.254/24"])),
      Topology.Wire(.init("m", "right", ["198.51.100.254/24"]), .init("b", "wire", ["198.51.100.2/24"])),
    ])

  /// A tunnel through one of these.
  static var plan: TunnelPlan {
    var plan = TunnelPlan()
    plan.topology = topology
    plan.measuresPath = false
    plan.paths = [.a: TunnelPlan.path("198.51.100.254"), .b: TunnelPlan.path("192.0.2.254")]
    return plan
  }

  private struct State {
    var isHolding: Set<Side> = []
    var held: [Side: [[UInt8]]] = [:]
    var passed: [Side: [[UInt8]]] = [:]
  }
  private let state = Mutex(State())
  private let over = Shared(Atomic(false))
  /// Connected to each gateway.
  private let sockets: [Side: Socket]
  /// Another address of the one in the middle, which no gateway expects anything from.
  private let stranger: Socket

  init(_ network: Network) throws {
    let (toA, toB, stranger) = try network["m"].inside {
      (
        try Interceptor.socket("192.0.2.254", 4500, "192.0.2.1"),
        try Interceptor.socket("198.51.100.254", 4500, "198.51.100.2"),
        try Interceptor.socket("198.51.100.254", 40_000, "198.51.100.2")
      )
    }
    sockets = [.a: toA, .b: toB]
    self.stranger = stranger
    for side in Side.allCases {
      guard let from = sockets[side], let to = sockets[side.other] else { continue }
      let over = over
      _ = LabThread<Void>(name: "from \(side)") { [weak self] in
        let buffer = LabBuffer(count: 65536)
        while !over.value.load(ordering: .acquiring) {
          let n = from.receive(buffer)
          guard n >= 0, let self else { continue }
          if self.take(buffer.bytes(0, n), from: side) { _ = to.send(buffer, 0, n) }
        }
      }
    }
  }

  deinit { over.value.store(true, ordering: .releasing) }

  private static func socket(_ address: String, _ port: UInt16, _ gateway: String) throws -> Socket {
    let socket = try Socket(.datagram, isV6: false)
    try socket.bind(Lab.Endpoint(address, port: port))
    try socket.connect(Lab.Endpoint(gateway, port: 4500))
    try socket.setTimeout(0.05)
    return socket
  }

  /// - Returns: whether it goes on.
  private func take(_ datagram: [UInt8], from side: Side) -> Bool {
    state.withLock { state in
      let isHeld = state.isHolding.contains(side)
      if isHeld {
        state.held[side, default: []].append(datagram)
      } else {
        state.passed[side, default: []].append(datagram)
      }
      return !isHeld
    }
  }

  /// From now on datagrams of `side` are kept back.
  func hold(from side: Side) { state.withLock { _ = $0.isHolding.insert(side) } }

  /// They pass again; returns those that were kept, which do not go on by themselves.
  func release(from side: Side) -> [[UInt8]] {
    state.withLock { state in
      state.isHolding.remove(side)
      defer { state.held[side] = [] }
      return state.held[side] ?? []
    }
  }

  /// Kept back so far.
  func held(from side: Side) -> [[UInt8]] { state.withLock { $0.held[side] ?? [] } }

  /// Those that went on, in order.
  func passed(from side: Side) -> [[UInt8]] { state.withLock { $0.passed[side] ?? [] } }

  /// Sends a datagram that a gateway takes for one of its peer.
  func send(_ datagram: [UInt8], to side: Side) throws {
    if let socket = sockets[side] { try Interceptor.send(datagram, on: socket) }
  }

  /// Sends datagrams of one size, of which the last may be shorter, as one train, which a gateway gets as one.
  func send(train: [[UInt8]], to side: Side) throws {
    guard let socket = sockets[side], let size = train.first?.count else { return }
    try socket.set(Int(SOL_UDP), Int32(CULVERT_UDP_SEGMENT), Int32(size), "UDP_SEGMENT")
    defer { try? socket.set(Int(SOL_UDP), Int32(CULVERT_UDP_SEGMENT), 0, "UDP_SEGMENT") }
    try Interceptor.send(Array(train.joined()), on: socket)
  }

  /// Sends b a datagram from where its peer never was.
  func sendAsStranger(_ datagram: [UInt8]) throws { try Interceptor.send(datagram, on: stranger) }

  private static func send(_ datagram: [UInt8], on socket: Socket) throws {
    let buffer = LabBuffer(count: max(datagram.count, 1))
    buffer.store(datagram)
    let n = socket.send(buffer, 0, datagram.count)
    if n < 0 { throw LabError.system("send a datagram", Int32(-n)) }
  }
}

/// Sends datagrams to one place, from no port in particular.
final class Sender: Sendable {
  private let socket: Socket

  init(from namespace: Namespace, to address: String, port: UInt16) throws {
    socket = try namespace.inside {
      let socket = try Socket(.datagram, isV6: address.contains(":"))
      try socket.connect(Lab.Endpoint(address, port: port))
      return socket
    }
  }

  func send(_ datagram: [UInt8]) throws {
    let buffer = LabBuffer(count: max(datagram.count, 1))
    buffer.store(datagram)
    let n = socket.send(buffer, 0, datagram.count)
    if n < 0 { throw LabError.system("send a datagram", Int32(-n)) }
  }
}
