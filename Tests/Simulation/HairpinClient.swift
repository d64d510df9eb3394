import PacketIO
import TestSupport

@testable import Transports

/// A gateway's sessions with the relay, which are the real ones, and what the transport does around them.
struct HairpinClient {
  private var sessions = HairpinSessions()
  private(set) var questions: [(bytes: [UInt8], to: Endpoint)] = []
  /// Paths that are open no more.
  private(set) var lost: [Path] = []

  init(_ entries: [HairpinTransport.Entry], now: MonotonicTime) {
    _ = sessions.replace(entries, now: now)
  }

  var deadline: MonotonicTime? { sessions.deadline }
  var openings: UInt64 { sessions.entries.reduce(0) { $0 + $1.session.openings } }

  mutating func takeMade() -> (questions: [(bytes: [UInt8], to: Endpoint)], lost: [Path]) {
    defer { (questions, lost) = ([], []) }
    return (questions, lost)
  }

  mutating func work(_ transport: UInt8, _ clock: HairpinWall, _ numbers: inout SeededNumbers) {
    for position in sessions.indices {
      while let step = sessions[position].poll(now: clock.now, wall: clock.nanoseconds, using: &numbers) {
        follow(step, position, transport)
      }
    }
  }

  /// Where a sealed packet goes; nil: the hairpin is not open.
  mutating func port(of path: Path, now: MonotonicTime) -> Endpoint? {
    guard let position = sessions.position(tag: path.tag), sessions[position].isOpen else { return nil }
    sessions[position].sent(now: now)
    return sessions[position].port
  }

  /// - Returns: by which path a sealed packet has come; nil: it was none, or nobody's.
  mutating func receive(
    _ bytes: [UInt8], from source: Endpoint, _ transport: UInt8, _ clock: HairpinWall, _ numbers: inout SeededNumbers
  ) -> Path? {
    guard !bytes.starts(with: [0, 0, 0, 0]) else {
      for position in sessions.indices {
        let isFromPort = sessions[position].port == source
        guard isFromPort || sessions[position].file.proxy == source else { continue }
        let step = sessions[position].receive(
          Array(bytes.dropFirst(4)), isFromPort: isFromPort, now: clock.now, wall: clock.nanoseconds, using: &numbers)
        if let step { follow(step, position, transport) }
      }
      return nil
    }
    guard let position = sessions.position(port: source, .udp) else { return nil }
    sessions[position].heard(now: clock.now)
    return path(position, transport)
  }

  private func path(_ position: Int, _ transport: UInt8) -> Path {
    sessions[position].file.path(.udp, transport: transport)
  }

  private mutating func follow(_ step: HairpinSession.Step, _ position: Int, _ transport: UInt8) {
    sessions.indexPorts()
    switch step {
    case .sendToProxy(let bytes): questions.append(([0, 0, 0, 0] + bytes, sessions[position].file.proxy))
    case .sendToPort(let bytes):
      if let port = sessions[position].port { questions.append(([0, 0, 0, 0] + bytes, port)) }
    case .opened: break
    case .lost: lost.append(path(position, transport))
    }
  }
}

/// The time of day that goes with the simulation's.
struct HairpinWall {
  let now: MonotonicTime
  private static let start: UInt64 = 1_800_000_000

  var seconds: Int64 { Int64(HairpinWall.start + now.nanoseconds / 1_000_000_000) }
  var nanoseconds: UInt64 { HairpinWall.start * 1_000_000_000 + now.nanoseconds }
}
