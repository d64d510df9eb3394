import Glibc
import PacketIO

/// A hairpin proxy, driven by turns of one thread.
///
/// A turn: 1. waits until a socket has something, a bucket has filled or a check is due; 2. reads the control ports;
/// 3. serves sides of hairpins in the order of `HairpinSchedule`, a batch each; 4. now and then looks for hairpins
/// that are over. What a hairpin may not send yet stays in the kernel's socket, so no packet waits in the process.
struct HairpinEngine: ~Copyable {
  /// One side of a hairpin: number 2h or 2h + 1 for hairpin h.
  struct Side: BitwiseCopyable {
    /// The UDP socket, or the stream; -1: none.
    var descriptor: Int32 = -1
    var listener: Int32 = -1
    var framer = RecordFramer(isOriginator: false)
    /// When something last went out of what waits for the stream.
    var progress = MonotonicTime(nanoseconds: 0)
    var road = HairpinRoad.udp
    var isAllocated = false
    var isProven = false
    var priority: UInt8 = 0
    var port: UInt16 = 0
    /// Position of the listening address it was allocated on.
    var listen: UInt8 = 0
    /// The gateway's proven address.
    var name = SocketName(Path.none.endpoint)
    var token = HairpinNumber.zero
    /// Of the last proof.
    var sequence: UInt64 = 0
    /// Of what comes from this side.
    var bucket: TokenBucket
    var lastHeard: MonotonicTime
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    var dropped: UInt64 = 0
  }

  /// What forwarding needs to know of a hairpin.
  struct Usage: BitwiseCopyable {
    var isOpen = false
    var bytes: UInt64 = 0
    var byteLimit: UInt64 = .max
    var lastData = MonotonicTime(nanoseconds: 0)
  }

  /// The rest.
  struct Hairpin {
    var life: HairpinLife
    var started: Int64
  }

  enum Key {
    static let control: UInt64 = 1
    static let listener: UInt64 = 2
    static let side: UInt64 = 3
    static let sideListener: UInt64 = 4
    static let stream: UInt64 = 5
    static let wake: UInt64 = 6
    static func make(_ kind: UInt64, _ index: Int) -> UInt64 { kind << 32 | UInt64(index) }
  }

  static let sweepInterval: UInt64 = 200_000_000
  /// Batches that are served in one turn at most, so that the control ports are never far.
  private static let batchesPerTurn = 64

  let options: HairpinProxyOptions
  var poller: Poller
  var batch = ForwardBatch()
  var schedule: HairpinSchedule
  var sides: FixedArray<Side>
  var usage: FixedArray<Usage>
  var hairpins: FixedArray<Hairpin?>
  var freeHairpins: FixedArray<Int32>
  var live: [HairpinNumber: Int] = [:]
  var admission: HairpinAdmission
  let cookies: HairpinCookies
  var controls: [Int32]
  var listeners: [Int32]
  var strangers: FixedArray<Stranger>
  var strangerBytes: FixedArray<[UInt8]>
  var freeStrangers: FixedArray<Int32>
  /// Of each side's stream: the beginning of a record whose rest has not come, and what it has not taken yet.
  var carries: FixedArray<[UInt8]>
  var pendings: FixedArray<[UInt8]>
  let space = StreamSpace()
  var statistics = HairpinStatistics()
  private var total: TokenBucket
  var signatures: TokenBucket
  private var nextSweep: MonotonicTime
  /// Looks for hairpins that are over, so far.
  private(set) var sweeps: UInt64 = 0
  var clock: HairpinClock
  var random = SystemRandomNumberGenerator()

  /// Opens the control ports in the calling thread's network namespace. Ports of gateways are opened by the thread
  /// that runs the turns, which must be in the same.
  init(_ options: HairpinProxyOptions, clock: HairpinClock) throws(SystemError) {
    let capacity = max(options.hairpins, 1)
    // What can fail comes first: a noncopyable value is initialised whole or not at all.
    let poller = try Poller()
    let files = 4 * capacity + options.unprovenStreams + 64
    _ = HairpinSocket.raiseFileLimit(to: files)
    var controls: [Int32] = []
    var listeners: [Int32] = []
    for (index, endpoint) in options.listen.enumerated() {
      let descriptor = HairpinEngine.patiently { HairpinSocket.openUDP(endpoint) }
      guard descriptor >= 0, poller.add(descriptor, key: Key.make(Key.control, index), isLevel: true) else {
        for open in controls + listeners { HairpinSocket.close(open) }
        throw SystemError(
          "listen on UDP \(endpoint)", errno: descriptor < 0 ? -descriptor : ENOMEM,
          remedy: "choose another address or port for `listen`, or stop the program that uses it (ss -ulpn shows it)")
      }
      controls.append(descriptor)
      let listener = HairpinEngine.patiently { HairpinSocket.openTCP(endpoint) }
      guard listener >= 0, poller.add(listener, key: Key.make(Key.listener, index), isLevel: true) else {
        for open in controls + listeners { HairpinSocket.close(open) }
        throw SystemError(
          "listen on TCP \(endpoint)", errno: listener < 0 ? -listener : ENOMEM,
          remedy: "choose another address or port for `listen`, or stop the program that uses it (ss -tlpn shows it)")
      }
      listeners.append(listener)
    }
    var random = SystemRandomNumberGenerator()
    self.options = options
    self.poller = poller
    self.controls = controls
    self.listeners = listeners
    let places = max(options.unprovenStreams, 1)
    strangers = FixedArray(repeating: Stranger(), count: places)
    strangerBytes = FixedArray(repeating: [], count: places)
    freeStrangers = FixedArray(capacity: places)
    for place in 0..<places { freeStrangers.append(Int32(place)) }
    carries = FixedArray(repeating: [], count: 2 * capacity)
    pendings = FixedArray(repeating: [], count: 2 * capacity)
    self.clock = clock
    schedule = HairpinSchedule(capacity: 2 * capacity)
    let side = Side(bucket: TokenBucket(bitRate: 0, now: clock.monotonic), lastHeard: clock.monotonic)
    sides = FixedArray(repeating: side, count: 2 * capacity)
    usage = FixedArray(repeating: Usage(), count: capacity)
    hairpins = FixedArray(repeating: nil, count: capacity)
    freeHairpins = FixedArray(capacity: capacity)
    for index in stride(from: capacity - 1, through: 0, by: -1) { freeHairpins.append(Int32(index)) }
    admission = HairpinAdmission(
      keys: options.publicKeys, name: options.name,
      memory: TicketMemory(capacity: options.tickets, options.uses))
    cookies = HairpinCookies(secret: (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &random) })
    total = TokenBucket(bitRate: options.bandwidth, now: clock.monotonic)
    signatures = TokenBucket(bitRate: options.signatures * 8, burst: options.signatures, now: clock.monotonic)
    nextSweep = clock.monotonic
  }

  /// A port that a process just gave up may stay taken for a moment.
  private static func patiently(_ open: () -> Int32) -> Int32 {
    var descriptor = open()
    for _ in 0..<20 where descriptor == -EADDRINUSE {
      usleep(50_000)
      descriptor = open()
    }
    return descriptor
  }

  // MARK: The turn

  /// One turn that waits so long at most. `read` gives the time after the wait.
  /// - Returns: whether the descriptor that was added under `Key.wake` has something.
  mutating func turn(waiting: UInt64, read: () -> HairpinClock) -> Bool {
    let events = poller.wait(nanoseconds: patience(waiting))
    clock = read()
    var isWoken = false
    for index in 0..<events {
      let key = poller.key(index)
      let number = Int(key & 0xFFFF_FFFF)
      switch key >> 32 {
      case Key.control: serveControl(number)
      case Key.side: noticeSide(number)
      case Key.listener: acceptStreams(listeners[number], side: -1, listen: UInt8(number))
      case Key.sideListener:
        if sides[number].listener >= 0 {
          acceptStreams(sides[number].listener, side: number, listen: sides[number].listen)
        }
      case Key.stream: serveStranger(number)
      case Key.wake: isWoken = true
      default: break
      }
    }
    serve()
    if clock.monotonic >= nextSweep { sweep() }
    return isWoken
  }

  private mutating func noticeSide(_ side: Int) {
    guard sides[side].isAllocated else { return }
    if sides[side].road == .tcp { pushPending(side) }
    if sides[side].descriptor >= 0 { schedule.markReady(side, priority: sides[side].priority) }
  }

  /// How long the next wait may be.
  private mutating func patience(_ waiting: UInt64) -> UInt64 {
    let now = clock.monotonic
    var limit = min(waiting, nextSweep.nanoseconds(since: now))
    if schedule.readyCount > 0 {
      limit = total.available(now: now) > 0 ? 0 : min(limit, total.opens(now: now).nanoseconds(since: now))
    }
    if let wake = schedule.nextWake { limit = min(limit, wake.nanoseconds(since: now)) }
    return limit
  }

  private mutating func serve() {
    schedule.wake(now: clock.monotonic)
    for _ in 0..<HairpinEngine.batchesPerTurn {
      guard total.available(now: clock.monotonic) > 0, let side = schedule.next() else { return }
      serveSide(side)
    }
  }

  /// Takes from the whole proxy's bandwidth.
  mutating func spend(_ bytes: Int) { total.take(bytes) }

  /// How many messages a side may hand in now; nil: none, and it is parked.
  mutating func allowance(_ side: Int) -> Int? {
    guard sides[side].bucket.isLimited || total.isLimited else { return ForwardBatch.capacity }
    let now = clock.monotonic
    let own = sides[side].bucket.available(now: now)
    guard own > 0 else {
      schedule.park(side, until: sides[side].bucket.opens(now: now), priority: sides[side].priority)
      return nil
    }
    // A message may be a train of 64 KiB, or a packet of a hundred bytes. Too many are repaid by waiting.
    return min(ForwardBatch.capacity, max(1, min(own, total.available(now: now)) / 16_384))
  }

  // MARK: Ends

  private mutating func sweep() {
    sweeps &+= 1
    nextSweep = clock.monotonic.adding(nanoseconds: HairpinEngine.sweepInterval)
    for index in 0..<hairpins.count where usage[index].isOpen {
      guard let hairpin = hairpins[index] else { continue }
      let (first, second) = (sides[2 * index].lastHeard, sides[2 * index + 1].lastHeard)
      let verdict = hairpin.life.verdict(clock, bytes: usage[index].bytes, lastData: usage[index].lastData) {
        $0 == .first ? first : second
      }
      if let verdict { finish(index, verdict) }
    }
    sweepStrangers()
    statistics.hairpins = live.count
    statistics.remembered = admission.memory.count
  }

  /// Ends a hairpin: tells both sides, leaves a record, remembers the ticket.
  mutating func finish(_ index: Int, _ reason: HairpinReason) {
    guard let hairpin = hairpins[index] else { return }
    let ticket = hairpin.life.ticket
    for side in [2 * index, 2 * index + 1] where sides[side].isAllocated {
      if sides[side].isProven {
        tell(side, HairpinMessage.end(token: sides[side].token, reason: reason.rawValue).encoded)
      }
      release(side)
    }
    let use = HairpinUse(
      number: ticket.number, notAfter: ticket.notAfter, isSpent: !reason.leavesTicketUsable,
      bytes: usage[index].bytes, started: hairpin.life.started)
    // A hairpin that nobody ever used leaves its ticket as it was.
    if !hairpin.life.provenEnds.isEmpty {
      admission.memory.remember(use)
      options.onUse(use)
    }
    let (first, second) = (sides[2 * index], sides[2 * index + 1])
    statistics[.ended] += 1
    live[ticket.number] = nil
    hairpins[index] = nil
    usage[index] = Usage()
    freeHairpins.append(Int32(index))
    options.onRecord(
      HairpinRecord(
        ticket: ticket.number, first: ticket.first.name, second: ticket.second.name, firstPackets: first.packets,
        firstBytes: first.bytes, secondPackets: second.packets, secondBytes: second.bytes,
        dropped: first.dropped + second.dropped, started: hairpin.started, ended: clock.wall, reason: reason))
  }

  /// Closes a side's sockets; its figures stay.
  mutating func release(_ side: Int) {
    schedule.remove(side)
    if sides[side].road == .tcp {
      closeStream(side)
      dropStrangers(of: side)
    } else if sides[side].descriptor >= 0 {
      sides[side].dropped += HairpinSocket.kernelDrops(sides[side].descriptor)
      HairpinSocket.close(sides[side].descriptor)
    }
    if sides[side].listener >= 0 { HairpinSocket.close(sides[side].listener) }
    sides[side].descriptor = -1
    sides[side].listener = -1
    sides[side].isAllocated = false
    sides[side].isProven = false
  }

  /// Sends a message to a side's proven address.
  mutating func tell(_ side: Int, _ bytes: [UInt8]) {
    if sides[side].road == .tcp { return putMessage(bytes, to: side) }
    _ = HairpinSocket.send(sides[side].descriptor, bytes, to: sides[side].name)
  }

  /// Ends all hairpins and closes.
  mutating func close() {
    for index in 0..<hairpins.count where hairpins[index] != nil { finish(index, .stopping) }
    for descriptor in controls + listeners { HairpinSocket.close(descriptor) }
    controls = []
    listeners = []
    for place in 0..<strangers.count where strangers[place].descriptor >= 0 { drop(stranger: place) }
    statistics.hairpins = 0
  }
}
