import PacketIO

/// Where streams are dialled to, and when again.
struct Destinations: ~Copyable {
  /// One endpoint.
  struct Destination: BitwiseCopyable {
    var endpoint: Endpoint
    /// The place of its stream; -1: none.
    var stream = -1
    var redial = Redial()
    /// Something was last to be sent there.
    var lastUsed: MonotonicTime
    /// Why there is no stream, a positive errno.
    var error: Int32 = 0
  }

  /// Nanoseconds after which a destination is forgotten to which nothing is sent.
  static let interest: UInt64 = 15_000_000_000

  private(set) var list: FixedArray<Destination>
  private var unused: FixedArray<Int32>
  private var places: [Endpoint: Int] = [:]

  init(capacity: Int) {
    let nothing = Destination(endpoint: Path.none.endpoint, lastUsed: MonotonicTime(nanoseconds: 0))
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
  mutating func place(for endpoint: Endpoint, now: MonotonicTime) -> Int? {
    if let place = places[endpoint] {
      list[place].lastUsed = now
      return place
    }
    guard let place = unused.popLast().map(Int.init) else { return nil }
    list[place] = Destination(endpoint: endpoint, lastUsed: now)
    places[endpoint] = place
    return place
  }

  func place(_ endpoint: Endpoint) -> Int? { places[endpoint] }

  /// Places without a stream that are to be dialled again now: something was sent there not long ago, and their time has
  /// come. Forgets the others.
  mutating func takeDue(_ now: MonotonicTime) -> [Int] {
    guard !places.isEmpty else { return [] }
    var due: [Int] = []
    for place in Array(places.values) where list[place].stream < 0 && list[place].redial.isDue(now) {
      if now.nanoseconds(since: list[place].lastUsed) < Destinations.interest {
        due.append(place)
      } else {
        places[list[place].endpoint] = nil
        unused.append(Int32(truncatingIfNeeded: place))
      }
    }
    return due
  }
}
