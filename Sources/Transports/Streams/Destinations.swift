import PacketIO

/// Where streams are dialled to, and when again.
struct Destinations: ~Copyable {
  /// One endpoint.
  struct Destination: BitwiseCopyable {
    var endpoint: Endpoint
    /// Tells it from others to the same place.
    var lane: UInt64 = 0
    /// The place of its stream; -1: none.
    var stream = -1
    var redial = Redial()
    /// Something was last to be sent there.
    var lastUsed: MonotonicTime
    /// Several peers are reached by its stream.
    var isShared = false
    /// Why there is no stream, a positive errno.
    var error: Int32 = 0
  }

  /// Nanoseconds after which a destination is forgotten to which nothing is sent.
  static let interest: UInt64 = 15_000_000_000

  private(set) var list: FixedArray<Destination>
  private var unused: FixedArray<Int32>
  private var places: [Lane: Int] = [:]

  private struct Lane: Hashable {
    let endpoint: Endpoint
    let number: UInt64
  }

  init(capacity: Int) {
    let nothing = Destination(endpoint: Endpoint.unspecified, lastUsed: MonotonicTime(nanoseconds: 0))
    list = FixedArray(repeating: nothing, count: capacity)
    unused = FixedArray(capacity: capacity)
    for place in stride(from: capacity - 1, through: 0, by: -1) { unused.append(Int32(place)) }
  }

  var count: Int { places.count }

  subscript(_ place: Int) -> Destination {
    @inline(__always) _read { yield list[place] }
    @inline(__always) _modify { yield &list[place] }
  }

  /// The place of an endpoint to which something is to be sent; nil when there are too many.
  mutating func place(for endpoint: Endpoint, lane: UInt64 = 0, now: MonotonicTime) -> Int? {
    if let place = places[Lane(endpoint: endpoint, number: lane)] {
      list[place].lastUsed = now
      return place
    }
    guard let place = unused.popLast().map(Int.init) else { return nil }
    list[place] = Destination(endpoint: endpoint, lane: lane, lastUsed: now)
    places[Lane(endpoint: endpoint, number: lane)] = place
    return place
  }

  func place(_ endpoint: Endpoint, lane: UInt64 = 0) -> Int? { places[Lane(endpoint: endpoint, number: lane)] }

  /// Places without a stream that are to be dialled again now: something was sent there not long ago, and their time has
  /// come. Forgets the others.
  mutating func takeDue(_ now: MonotonicTime) -> [Int] {
    guard !places.isEmpty else { return [] }
    var due: [Int] = []
    for place in Array(places.values) where list[place].stream < 0 && list[place].redial.isDue(now) {
      if now.nanoseconds(since: list[place].lastUsed) < Destinations.interest {
        due.append(place)
      } else {
        places[Lane(endpoint: list[place].endpoint, number: list[place].lane)] = nil
        unused.append(Int32(truncatingIfNeeded: place))
      }
    }
    return due
  }
}
