import PacketIO
import Transports

/// A stream that has not proved anything yet: to a control port, or to a side's port.
struct UnprovenStream: BitwiseCopyable {
  /// The port it came to.
  enum Port: BitwiseCopyable, Equatable {
    case control(listen: Int)
    case side(Int)
    /// A side's, which is closed by now.
    case gone
  }

  var descriptor: Int32 = -1
  var port = Port.gone
  /// Tells completions for this stream from those of earlier ones at its place.
  var number: UInt32 = 0
  var sender = Endpoint(address: IPAddress(v4: 0), port: 0)
  var framer = RecordFramer(isOriginator: false)
  var deadline = MonotonicTime(nanoseconds: 0)
  /// It has shown a genuine ticket, or a port's token: what an outsider does not have.
  var hasShown = false
  /// In the order of their coming.
  fileprivate var order: UInt64 = 0

  var origin: IPAddress { UnprovenStreams.origin(sender.address) }
}

/// Streams that have not proved anything, and who makes room when there are too many: the oldest of the same origin where
/// that has its share, else the oldest of the origin that has most. Those that have shown something are a class of their
/// own, in which outsiders count for nothing.
struct UnprovenStreams: ~Copyable {
  let capacity: Int
  private let perOrigin: Int
  private var streams: FixedArray<UnprovenStream>
  /// What was read of each and is no whole record yet.
  private var begun: FixedArray<[UInt8]>
  private var free: FixedArray<Int32>
  /// Streams by origin: those that have shown nothing, and the others.
  private var outsiders: [IPAddress: Int] = [:]
  private var known: [IPAddress: Int] = [:]
  private var nextOrder: UInt64 = 0

  init(capacity: Int, perOrigin: Int) {
    self.capacity = capacity
    self.perOrigin = min(perOrigin, capacity)
    streams = FixedArray(repeating: UnprovenStream(), count: capacity)
    begun = FixedArray(repeating: [], count: capacity)
    free = FixedArray(capacity: capacity)
    for place in stride(from: capacity - 1, through: 0, by: -1) { free.append(Int32(truncatingIfNeeded: place)) }
  }

  var count: Int { capacity - free.count }

  subscript(_ place: Int) -> UnprovenStream { streams[place] }
  func isOpen(_ place: Int) -> Bool { streams[place].descriptor >= 0 }

  /// Whose streams are counted together: one IPv4 address, or a site of IPv6, which has as many as it likes.
  static func origin(_ address: IPAddress) -> IPAddress {
    address.isV4 ? address : IPAddress(v6High: address.high, low: 0)
  }

  /// Who has to go before one from that address can come; nil: there is room.
  func victim(for address: IPAddress) -> Int? {
    let origin = UnprovenStreams.origin(address)
    if outsiders[origin] ?? 0 >= perOrigin { return oldest { $0.origin == origin && !$0.hasShown } }
    guard free.isEmpty else { return nil }
    return oldestOfMost
  }

  /// The oldest of the origin that has most outsiders, or where there are none, most others.
  var oldestOfMost: Int? {
    let (counts, hasShown) = outsiders.isEmpty ? (known, true) : (outsiders, false)
    guard let most = counts.values.max() else { return nil }
    return oldest { $0.hasShown == hasShown && counts[$0.origin] == most }
  }

  private func oldest(_ matches: (UnprovenStream) -> Bool) -> Int? {
    var found: Int?
    for place in 0..<capacity where isOpen(place) && matches(streams[place]) {
      if found.map({ streams[place].order < streams[$0].order }) ?? true { found = place }
    }
    return found
  }

  /// Takes a stream in; nil when there is no room.
  mutating func add(_ descriptor: Int32, _ port: UnprovenStream.Port, _ sender: Endpoint, deadline: MonotonicTime)
    -> Int?
  {
    guard let place = free.popLast().map(Int.init) else { return nil }
    var stream = UnprovenStream()
    stream.descriptor = descriptor
    stream.port = port
    stream.number = streams[place].number &+ 1
    stream.sender = sender
    stream.deadline = deadline
    stream.order = nextOrder
    nextOrder += 1
    streams[place] = stream
    outsiders[stream.origin, default: 0] += 1
    return place
  }

  /// The stream has shown something that an outsider does not have. Of one origin only so many count for that.
  mutating func markShown(_ place: Int) {
    let origin = streams[place].origin
    guard !streams[place].hasShown, known[origin] ?? 0 < perOrigin else { return }
    streams[place].hasShown = true
    UnprovenStreams.takeOne(&outsiders, origin)
    known[origin, default: 0] += 1
  }

  mutating func remove(_ place: Int) {
    if streams[place].hasShown {
      UnprovenStreams.takeOne(&known, streams[place].origin)
    } else {
      UnprovenStreams.takeOne(&outsiders, streams[place].origin)
    }
    streams[place].descriptor = -1
    streams[place].number &+= 1
    begun[place] = []
    free.append(Int32(truncatingIfNeeded: place))
  }

  private static func takeOne(_ counts: inout [IPAddress: Int], _ origin: IPAddress) {
    guard let count = counts[origin], count > 1 else {
      counts[origin] = nil
      return
    }
    counts[origin] = count - 1
  }

  // MARK: What they say

  /// Bytes that were read and are no whole record yet.
  func begun(_ place: Int) -> [UInt8] { begun[place] }
  mutating func keep(_ bytes: [UInt8], of place: Int) { begun[place] = bytes }

  /// The next record of what was read.
  mutating func next(_ place: Int, _ bytes: PacketBytes, _ offset: inout Int) -> RecordFramer.Step {
    streams[place].framer.next(bytes, &offset, most: 1)
  }
}
