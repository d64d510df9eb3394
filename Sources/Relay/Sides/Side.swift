import PacketIO
import Transports

/// One side of a hairpin: the port that its gateway has, what is known of the gateway, and how it is served.
struct Side {
  /// What was opened for the gateway.
  struct Port: BitwiseCopyable {
    var isAllocated = false
    var encapsulation = Encapsulation.udp
    var number: UInt16 = 0
    /// Position of the listening address it was allocated on, and that address; where the relay listens on all, the one
    /// that the gateway spoke to.
    var listen: UInt8 = 0
    var address = IPAddress(v4: 0)
    /// The UDP socket; -1: none.
    var socket: Int32 = -1
    var listener: PolledListener?
    /// By which a gateway that was given the port is known there.
    var token = HairpinNumber.zero
    /// Tells completions for this port from those of earlier ones of the same side.
    var mark: UInt32 = 0
  }

  /// Who has proved to be the gateway.
  struct Holder: BitwiseCopyable {
    var isProven = false
    /// The proven address.
    var name = SocketName(Endpoint.unspecified)
    /// Of the last proof.
    var sequence: UInt64 = 0
    var lastHeard: MonotonicTime
  }

  /// What the ring does for the UDP socket.
  struct Receive: BitwiseCopyable {
    var isArmed = false
    var isPolled = false
    /// It is on the list of those whose receive has ended.
    var isUnarmed = false
  }

  /// The gateway's stream.
  struct StreamState {
    static let mostRead = BufferPool.bufferSize
    static let leastRead = 4 << 10

    /// Its place in the table; nil: there is none.
    var place: Int?
    /// What it has not taken yet.
    var queue = ByteQueue()
    /// Messages of our own that wait until a run on the same stream is over.
    var delayed: [UInt8] = []
    /// When it last took something of what waits for it.
    var progress = MonotonicTime(nanoseconds: 0)
    /// Bytes of records that are read at once: fewer after a batch that took long.
    var readLimit = StreamState.mostRead
    /// A run of records was just over, and another may follow.
    var expectsRun = false
    /// What it has announced.
    var run = AnnouncedRun()
  }

  /// Sealed packets from this side.
  struct Traffic: BitwiseCopyable {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    var dropped: UInt64 = 0
  }

  var port = Port()
  var holder: Holder
  var receive = Receive()
  var stream = StreamState()
  var traffic = Traffic()
  var priority: UInt8 = 0
  /// Of what comes from this side.
  var bucket: TokenBucket
  /// Messages of its gateway that are looked at. A hold every half second is the most that it has to say.
  var messages = TokenBucket(perSecond: 32, burst: 64)

  init(priority: UInt8 = 0, bucket: TokenBucket, now: MonotonicTime) {
    self.priority = priority
    self.bucket = bucket
    holder = Holder(lastHeard: now)
  }

  /// A batch of the stream took so many nanoseconds: what is expensive by its nature, many short records, is read in
  /// smaller pieces, so that others come in between.
  mutating func adapt(toCost nanoseconds: UInt64) {
    if nanoseconds > Side.costlyBatch {
      stream.readLimit = max(stream.readLimit / 2, StreamState.leastRead)
    } else if nanoseconds < Side.costlyBatch / 2 {
      stream.readLimit = min(stream.readLimit * 2, StreamState.mostRead)
    }
  }

  private static let costlyBatch: UInt64 = 1_000_000
}

/// All sides, two for each hairpin.
struct Sides: ~Copyable {
  private var rows: FixedArray<Side>

  init(hairpins: Int, now: MonotonicTime) {
    rows = FixedArray(repeating: Side(bucket: TokenBucket(bitRate: 0, now: now), now: now), count: 2 * hairpins)
  }

  var count: Int { rows.count }

  subscript(_ side: SideIndex) -> Side {
    @inline(__always) _read { yield rows[side.place] }
    @inline(__always) _modify { yield &rows[side.place] }
  }
}
