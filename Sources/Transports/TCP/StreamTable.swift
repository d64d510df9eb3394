import PacketIO

/// One stream, from the dial or the accept until nothing of it is in flight any more.
struct Stream: BitwiseCopyable {
  enum State: UInt8, BitwiseCopyable {
    case free, connecting, open
    /// Shut down; it goes when the kernel has let go of it.
    case closing
  }

  var state = State.free
  var descriptor: Int32 = -1
  /// Never used again.
  var number: UInt64 = 0
  /// Where its packets come from and go to.
  var path = Path.none
  var framer = RecordFramer(isOriginator: false)
  var queue = SendQueues.Queue()
  /// Bytes of the stream prefix that have yet to go.
  var prefix = 0
  /// Bytes of an announcement in front of the send in flight, and of the announced run that have yet to go.
  var announcement = 0
  var announced = 0
  var carry = RecordCarry.Part()
  /// What the kernel does for it.
  var isConnecting = false
  var isReceiving = false
  var isSending = false
  /// It is on the list of those that have something to send, or wait for a receive.
  var isReady = false
  var isUnarmed = false
  /// A packet that came by it proved authentic, or something was sent by it.
  var isIdentified = false
  var receivedBytes = 0
  /// When it must be open, or identified.
  var deadline = MonotonicTime(nanoseconds: 0)
  /// Its destination, where it was dialled; else -1.
  var destination: Int32 = -1

  var isIdle: Bool { !isConnecting && !isReceiving && !isSending }
  var isStranger: Bool { destination < 0 && !isIdentified && (state == .open) }
}

/// The streams by their places, and who is among them without having said who.
struct StreamTable: ~Copyable {
  private(set) var streams: FixedArray<Stream>
  private var free: FixedArray<Int32>
  private var nextNumber: UInt64 = 1
  /// Places that were ever used.
  private(set) var used = 0
  private(set) var strangers = 0
  private var strangersOf: [IPAddress: Int] = [:]

  init(capacity: Int) {
    streams = FixedArray(repeating: Stream(), count: capacity)
    free = FixedArray(capacity: capacity)
    for place in stride(from: capacity - 1, through: 0, by: -1) { free.append(Int32(place)) }
  }

  subscript(_ place: Int) -> Stream {
    @inline(__always) _read { yield streams[place] }
    @inline(__always) _modify { yield &streams[place] }
  }

  /// A stream that is in use.
  var count: Int { streams.capacity - free.count }

  /// The place of an accepted stream that is still open; nil when it is not.
  func place(tag: UInt64) -> Int? {
    let place = Int(tag & 0xFFFF)
    guard place < streams.count, streams[place].state == .open, streams[place].path.tag == tag else { return nil }
    return place
  }

  /// Takes a place for a stream that is dialled; nil when all are taken.
  mutating func dialled(_ descriptor: Int32, path: Path, destination: Int, deadline: MonotonicTime) -> Int? {
    guard let place = take(descriptor) else { return nil }
    streams[place].state = .connecting
    streams[place].path = path
    streams[place].framer = RecordFramer(isOriginator: true)
    streams[place].prefix = RecordFramer.prefix.count
    streams[place].destination = Int32(truncatingIfNeeded: destination)
    streams[place].deadline = deadline
    return place
  }

  /// Takes a place for a stream that was accepted; nil when all are taken.
  mutating func accepted(_ descriptor: Int32, from endpoint: Endpoint, transport: UInt8, deadline: MonotonicTime)
    -> Int?
  {
    guard let place = take(descriptor) else { return nil }
    streams[place].state = .open
    streams[place].path = Path(
      transport: transport, endpoint: endpoint, tag: streams[place].number << 16 | UInt64(place))
    streams[place].deadline = deadline
    strangers += 1
    strangersOf[StreamTable.origin(endpoint.address), default: 0] += 1
    return place
  }

  private mutating func take(_ descriptor: Int32) -> Int? {
    guard let place = free.popLast().map(Int.init) else { return nil }
    streams[place] = Stream()
    streams[place].descriptor = descriptor
    streams[place].number = nextNumber
    nextNumber += 1
    used = max(used, place + 1)
    return place
  }

  /// The stream belongs to a partner.
  mutating func identify(_ place: Int) {
    guard !streams[place].isIdentified else { return }
    forgetStranger(place)
    streams[place].isIdentified = true
  }

  /// The stream carries nothing any more.
  mutating func beginClosing(_ place: Int) {
    forgetStranger(place)
    streams[place].state = .closing
  }

  mutating func release(_ place: Int) {
    streams[place].state = .free
    free.append(Int32(truncatingIfNeeded: place))
  }

  private mutating func forgetStranger(_ place: Int) {
    guard streams[place].isStranger else { return }
    strangers -= 1
    let origin = StreamTable.origin(streams[place].path.endpoint.address)
    if let count = strangersOf[origin], count > 1 {
      strangersOf[origin] = count - 1
    } else {
      strangersOf[origin] = nil
    }
  }

  func strangers(from address: IPAddress) -> Int { strangersOf[StreamTable.origin(address)] ?? 0 }

  /// The stranger that has been there the longest.
  var oldestStranger: Int? {
    var oldest: Int?
    for place in 0..<used where streams[place].isStranger {
      if let found = oldest, streams[found].number < streams[place].number { continue }
      oldest = place
    }
    return oldest
  }

  /// Whose streams are counted together: one IPv4 address, or a site of IPv6, which has as many as it likes.
  private static func origin(_ address: IPAddress) -> IPAddress {
    address.isV4 ? address : IPAddress(v6High: address.high, low: 0)
  }
}
