public import PacketIO
import Synchronization

/// A capture under way: the worker puts packets in, somebody takes them out as the bytes of a pcapng file.
///
/// What waits is limited; what finds no room is counted and left out.
public final class PacketCapture: Sendable {
  /// What is to be captured.
  public struct Request: Sendable, Equatable {
    public var inner = true
    public var outer = true
    /// Bytes that are kept of each packet, 64 to 65,575.
    public var snapLength = 65_575
    /// Packets to capture; nil: until it is ended.
    public var count: Int?
    /// Only packets from and to this peer; packets that belong to no peer are left out then.
    public var peer: String?
    /// Where this side receives, for the outer headers.
    public var local: Endpoint?
    public var localPort: UInt16 = 4500
    /// Nanoseconds since 1970 when `MonotonicTime` was zero.
    public var epoch: UInt64 = 0

    public init() {}
  }

  public let request: Request
  /// Bytes that wait at most.
  static let capacity = 8 << 20

  private struct State {
    var waiting: [UInt8] = []
    var remaining = Int.max
    var lost: UInt64 = 0
    var isOver = false
  }
  private let state: Mutex<State>

  public init(_ request: Request) {
    self.request = request
    var state = State()
    state.waiting = CaptureFile.header(snapLength: request.snapLength)
    state.remaining = request.count ?? Int.max
    self.state = Mutex(state)
  }

  /// Whole blocks of the file, in order; the first call has its header. Nil when nothing more will come.
  public func take() -> [UInt8]? {
    state.withLock { state in
      if state.isOver, state.waiting.isEmpty { return nil }
      defer { state.waiting.removeAll(keepingCapacity: true) }
      return state.waiting
    }
  }

  /// Packets that found no room.
  public var lost: UInt64 { state.withLock(\.lost) }

  /// Nothing more is to come.
  var isOver: Bool { state.withLock(\.isOver) }

  /// Ends it, with the count of lost packets as the file's last word.
  func end(at time: UInt64) {
    state.withLock { state in
      guard !state.isOver else { return }
      state.isOver = true
      let side: CaptureFile.Side = request.inner ? .inner : .outer
      state.waiting += CaptureFile.statistics(side: side, time: time &+ request.epoch, lost: state.lost)
    }
  }

  /// Takes blocks of one packet each. False: enough packets were captured.
  func put(_ blocks: [[UInt8]], lost: UInt64) -> Bool {
    state.withLock { state in
      state.lost += lost
      for block in blocks where state.remaining > 0 && !state.isOver {
        guard state.waiting.count + block.count <= PacketCapture.capacity else {
          state.lost += 1
          continue
        }
        state.waiting += block
        state.remaining -= 1
      }
      return state.remaining > 0 && !state.isOver
    }
  }
}
