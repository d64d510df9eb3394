/// What a worker lends to its TUN queue and its transports for the length of a call.
public struct WorkerIO: ~Copyable {
  /// Events that wait at most, until the worker takes them at the end of its turn.
  private static let eventCapacity = 16

  public var ring: Ring
  public let pool: BufferPool
  /// Read once a turn.
  public var now: MonotonicTime
  private var events: [TransportEvent] = []
  private var owners: UInt8 = 0
  private var bufferGroups: UInt16 = 0

  public init(ring: consuming Ring, pool: BufferPool, now: MonotonicTime) {
    self.ring = ring
    self.pool = pool
    self.now = now
  }

  // MARK: Numbers

  /// The owner number that the next claim gets.
  package var nextOwner: UInt8 { owners + 1 }

  /// A number for `Token.owner` that nobody else on this ring has; 0 is the worker's own. Whose link claims it while it
  /// is opened gets the completions that carry it. A transport that is made of several claims one for each.
  public mutating func claimOwner() -> UInt8 {
    precondition(owners < 0xFE, "a ring has no more than 254 owners")
    owners += 1
    return owners
  }

  /// A number for a `BufferRing` or a `Receiver` that nobody else on this ring has.
  public mutating func claimBufferGroup() -> UInt16 {
    precondition(bufferGroups < 0x7FFF, "a ring has no more than 32,767 buffer groups")
    bufferGroups += 1
    return bufferGroups
  }

  // MARK: Events

  /// Leaves an event for the worker; dropped when many others are waiting.
  public mutating func report(_ kind: TransportEvent.Kind, _ path: Path) {
    if let last = events.indices.last, events[last].path == path, events[last].kind == kind {
      events[last].count += 1
      return
    }
    if events.count < WorkerIO.eventCapacity { events.append(TransportEvent(kind, path)) }
  }

  /// The events since the last call.
  public mutating func takeEvents() -> [TransportEvent] {
    guard !events.isEmpty else { return [] }
    defer { events.removeAll(keepingCapacity: true) }
    return events
  }
}
