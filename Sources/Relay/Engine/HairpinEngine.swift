import Glibc
import PacketIO
import Transports

/// A hairpin proxy, driven by turns of one thread.
///
/// A turn: 1. submits what the last one left to send, and waits in the ring until something has come, a bucket has filled
/// or a check is due; 2. forwards what the kernel hands over of sides without a limit, answers the control ports, notes
/// which other sides have something; 3. serves those in the order of `HairpinSchedule`, a batch each; 4. arms again what
/// has ended, and now and then looks for hairpins that are over. What a hairpin may not send yet stays in the kernel's
/// socket, so no packet waits in the process.
struct HairpinEngine: ~Copyable {
  /// One side of a hairpin: number 2h or 2h + 1 for hairpin h.
  struct Side: BitwiseCopyable {
    /// The UDP socket, or the stream; -1: none.
    var descriptor: Int32 = -1
    var listener: Int32 = -1
    var framer = RecordFramer(isOriginator: false)
    /// When something last went out of what waits for the stream.
    var progress = MonotonicTime(nanoseconds: 0)
    var encapsulation = Encapsulation.udp
    var isAllocated = false
    var isProven = false
    /// What the ring does for it: receives, waits until it can be read, or written.
    var isReceiving = false
    var isPolled = false
    var isWatched = false
    /// A run of records was just over, and another may follow.
    var expectsRun = false
    /// It is on the list of those whose receive has ended.
    var isUnarmed = false
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

  /// Tells completions for a side's port, and for its stream, from those of earlier ones.
  struct Marks: BitwiseCopyable {
    var port: UInt32 = 0
    var stream: UInt32 = 0
  }

  /// A control port, and whether the ring serves it.
  struct Control: BitwiseCopyable {
    var datagrams: Int32
    var listener: Int32
    var isReceiving = false
    var isAccepting = false
  }

  /// Bytes that the kernel may queue for a side in each direction; it is also the queue of one whose bandwidth is used
  /// up.
  static let socketBuffer: Int32 = 2 << 20
  private static let sweepInterval: UInt64 = 50_000_000
  /// Sweeps from one look at strangers and figures to the next.
  private static let sweepsPerLook = 4
  /// Hairpins that a sweep looks at: so many, or where there are more, as many as have all looked at within a second.
  private static let hairpinsPerSweep = 256
  /// Batches that are served in one turn at most, so that the control ports are never far.
  private static let batchesPerTurn = 64

  let options: HairpinProxyOptions
  var io: HairpinIO
  var batch: ForwardBatch
  /// The side whose packets are staged; -1: nobody's.
  var stagedSide = -1
  var schedule: HairpinSchedule
  var sides: FixedArray<Side>
  var marks: FixedArray<Marks>
  /// Sides whose receive is to be armed at the end of the turn.
  private var unarmed: FixedArray<Int32>
  var usage: FixedArray<Usage>
  var hairpins: FixedArray<Hairpin?>
  var freeHairpins: FixedArray<Int32>
  var live: [HairpinNumber: Int] = [:]
  var admission: HairpinAdmission
  let cookies: HairpinCookies
  var controls: [Control]
  /// The descriptor that ends a wait; see `watch`.
  private var waker: Int32 = -1
  private var isActive = false
  var unproven: UnprovenStreams
  /// Of each side's stream: the beginning of a record whose rest has not come, and what it has not taken yet.
  var carries: FixedArray<[UInt8]>
  var pendings: FixedArray<[UInt8]>
  /// Messages of our own that wait until a run on the same stream is over.
  var late: FixedArray<[UInt8]>
  /// What each side has announced.
  var announced: FixedArray<AnnouncedRun>
  var pipes = HairpinPipes()
  let space = StreamSpace()
  var statistics = HairpinStatistics()
  private var total: TokenBucket
  var signatures: TokenBucket
  private var nextSweep: MonotonicTime
  /// No stream could be accepted, at a control port or at a side's: it is tried again at the next sweep.
  var isHeldUp = false
  var heldUp: [Int] = []
  /// The hairpin that the next sweep begins with, and sweeps until the next look at the rest.
  private var sweepPlace = 0
  private var sweepsLeft = 0
  /// Looks at strangers and figures so far, five a second.
  private(set) var looks: UInt64 = 0
  var clock: HairpinClock
  var random = SystemRandomNumberGenerator()

  /// Opens the control ports in the calling thread's network namespace. Ports of gateways are opened by the thread
  /// that runs the turns, which must be in the same.
  init(_ options: HairpinProxyOptions, clock: HairpinClock) throws(SystemError) {
    let capacity = max(options.hairpins, 1)
    // What can fail comes first: a noncopyable value is initialised whole or not at all.
    OpenFiles.raiseLimit(wanted: options.openFiles)
    let io = try HairpinIO(allowed: options.allowedFeatures)
    var controls: [Control] = []
    do throws(SystemError) {
      for endpoint in options.listen {
        controls.append(Control(datagrams: try HairpinEngine.control(.udp, endpoint), listener: -1))
        controls[controls.count - 1].listener = try HairpinEngine.control(.tcp, endpoint)
      }
    } catch {
      for control in controls {
        for open in [control.datagrams, control.listener] where open >= 0 { KernelSocket.close(open) }
      }
      throw error
    }
    var random = SystemRandomNumberGenerator()
    self.options = options
    batch = ForwardBatch(pool: io.pool)
    self.io = io
    self.controls = controls
    unproven = UnprovenStreams(
      capacity: max(options.unprovenStreams, 1), perOrigin: max(options.unprovenStreamsPerOrigin, 1))
    carries = FixedArray(repeating: [], count: 2 * capacity)
    pendings = FixedArray(repeating: [], count: 2 * capacity)
    late = FixedArray(repeating: [], count: 2 * capacity)
    announced = FixedArray(repeating: AnnouncedRun(), count: 2 * capacity)
    marks = FixedArray(repeating: Marks(), count: 2 * capacity)
    unarmed = FixedArray(capacity: 2 * capacity)
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

  private static func control(_ kind: KernelSocket, _ endpoint: Endpoint) throws(SystemError) -> Int32 {
    do throws(SystemError) {
      return try kind.patiently(endpoint) {
        kind == .udp
          ? UDPSocket.open(endpoint, waits: true, bufferSize: HairpinEngine.socketBuffer) : TCPSocket.listen(endpoint)
      }
    } catch {
      throw SystemError(
        "listen on \(kind == .udp ? "UDP" : "TCP") \(endpoint)", errno: error.errno,
        remedy: "choose another address or port for `listen`, or stop the program that uses it "
          + "(ss -\(kind == .udp ? "u" : "t")lpn shows it)")
    }
  }

  // MARK: The turn

  /// Has a descriptor end the wait when it can be read; `turn` then returns true. Before the first turn.
  mutating func watch(_ descriptor: Int32) { waker = descriptor }

  /// One turn that waits so long at most. `read` gives the time after the wait. All turns are one thread's.
  /// - Returns: whether the descriptor that is watched has something.
  mutating func turn(waiting: UInt64, read: () -> HairpinClock) -> Bool {
    if !isActive { activate() }
    io.ring.submitAndWait(nanoseconds: patience(waiting))
    clock = read()
    var isWoken = false
    while let completion = io.ring.nextCompletion() {
      if completion.token.kind == HairpinIO.Kind.wake.rawValue { isWoken = true } else { complete(completion) }
    }
    flush()
    serve()
    io.topUp()
    arm()
    if clock.monotonic >= nextSweep { sweep() }
    return isWoken
  }

  private mutating func activate() {
    isActive = true
    HairpinPipes.ignoreBrokenPipes()
    io.activate()
    if waker >= 0 { io.pollReadable(waker, token: Token(owner: 0, kind: HairpinIO.Kind.wake)) }
    arm()
  }

  private mutating func complete(_ completion: Completion) {
    let token = completion.token
    guard let kind = HairpinIO.Kind(rawValue: token.kind) else { return }
    switch kind {
    case .send: completeSend(token.value, completion.result)
    case .receive: completeReceive(completion)
    case .control:
      controls[token.value].isReceiving = completion.more
      guard let message = io.message(completion) else { return }
      serveControl(token.value, message)
      io.pool.release(message.buffer)
    case .controlReadable:
      controls[token.value].isReceiving = false
      if completion.result >= 0 { pullControl(token.value) }
    case .listener: completeAccept(completion, at: .control(listen: token.value))
    case .accept:
      let side = HairpinEngine.place(token)
      completeAccept(completion, at: isCurrent(token, marks[side].port) ? .side(side) : .gone)
    case .unproven:
      let place = HairpinEngine.place(token)
      if isCurrent(token, unproven[place].number) { serveUnproven(place) }
    case .readable:
      let side = HairpinEngine.place(token)
      guard isCurrent(token, marks[side].stream) else { return }
      sides[side].isPolled = false
      schedule.markReady(side, priority: sides[side].priority)
    case .writable:
      let side = HairpinEngine.place(token)
      guard isCurrent(token, marks[side].stream) else { return }
      sides[side].isWatched = false
      pushPending(side)
    case .wake, .cancelled: break
    }
  }

  /// What a completion for a side, or a stranger, carries: its place, and its mark in 28 bits.
  static func token(_ kind: HairpinIO.Kind, _ place: Int, _ mark: UInt32) -> Token {
    Token(owner: 0, kind: kind, value: Int(mark & 0xFFF_FFFF) << 20 | place)
  }

  static func place(_ token: Token) -> Int { token.value & 0xF_FFFF }

  func isCurrent(_ token: Token, _ mark: UInt32) -> Bool { token.value >> 20 == Int(mark & 0xFFF_FFFF) }

  // MARK: Arming

  /// Whether what comes from a datagram side is forwarded as it comes: nothing has to be decided about it.
  private func isPushed(_ side: Int) -> Bool {
    io.canPush && !sides[side].bucket.isLimited && !total.isLimited
      && !(sides[side ^ 1].isAllocated && sides[side ^ 1].encapsulation == .tcp)
  }

  /// Has a datagram side heard, in the way that suits it now, from the end of the turn on.
  mutating func want(_ side: Int) {
    guard !sides[side].isUnarmed else { return }
    sides[side].isUnarmed = unarmed.append(Int32(side))
  }

  /// Waits until a side can be read.
  mutating func poll(_ side: Int) {
    guard !sides[side].isPolled, sides[side].descriptor >= 0 else { return }
    sides[side].isPolled = true
    io.pollReadable(
      sides[side].descriptor, token: HairpinEngine.token(.readable, side, marks[side].stream))
  }

  /// Waits until a side's stream takes something.
  mutating func watch(side: Int) {
    guard !sides[side].isWatched, sides[side].descriptor >= 0 else { return }
    sides[side].isWatched = true
    io.pollWritable(
      sides[side].descriptor, token: HairpinEngine.token(.writable, side, marks[side].stream))
  }

  private mutating func arm() {
    for index in controls.indices where !controls[index].isReceiving {
      if io.canPush {
        guard io.hasBuffers else { break }
        io.receive(controls[index].datagrams, token: Token(owner: 0, kind: HairpinIO.Kind.control, value: index))
      } else {
        io.pollReadable(
          controls[index].datagrams, token: Token(owner: 0, kind: HairpinIO.Kind.controlReadable, value: index))
      }
      controls[index].isReceiving = true
    }
    if !isHeldUp {
      for index in controls.indices where !controls[index].isAccepting {
        controls[index].isAccepting = true
        io.accept(controls[index].listener, token: Token(owner: 0, kind: HairpinIO.Kind.listener, value: index))
      }
    }
    guard io.hasBuffers || !io.canPush else { return }
    while let side = unarmed.popLast().map({ Int($0) }) {
      sides[side].isUnarmed = false
      guard sides[side].isAllocated, sides[side].encapsulation == .udp, !sides[side].isReceiving else { continue }
      guard isPushed(side) else {
        poll(side)
        continue
      }
      sides[side].isReceiving = true
      io.receive(
        sides[side].descriptor, token: HairpinEngine.token(.receive, side, marks[side].stream))
    }
  }

  /// A side's partner is of another kind now: it is heard in another way, perhaps.
  mutating func reconsider(_ side: Int) {
    guard sides[side].isAllocated, sides[side].encapsulation == .udp, sides[side].isReceiving, !isPushed(side) else {
      return
    }
    io.cancel(HairpinEngine.token(.receive, side, marks[side].stream))
  }

  /// How long the next wait may be.
  private mutating func patience(_ waiting: UInt64) -> UInt64 {
    let now = clock.monotonic
    var limit = min(waiting, nextSweep.nanoseconds(since: now))
    // Their buffers come back with what is being sent.
    if !unarmed.isEmpty { limit = min(limit, 100_000) }
    if schedule.readyCount > 0 {
      limit = total.available(now: now) > 0 ? 0 : min(limit, total.opens(now: now).nanoseconds(since: now))
    }
    if let wake = schedule.nextWake { limit = min(limit, wake.nanoseconds(since: now)) }
    return limit
  }

  private mutating func serve() {
    schedule.wake(now: clock.monotonic)
    for _ in 0..<HairpinEngine.batchesPerTurn {
      guard batch.room >= HairpinIO.pullCapacity, io.pool.available >= HairpinIO.pullCapacity,
        total.available(now: clock.monotonic) > 0, let side = schedule.next()
      else { return }
      serveSide(side)
    }
  }

  /// Takes from the whole proxy's bandwidth.
  mutating func spend(_ bytes: Int) { total.take(bytes) }

  /// How many messages a side may hand in now; nil: none, and it is parked.
  mutating func allowance(_ side: Int) -> Int? {
    guard sides[side].bucket.isLimited || total.isLimited else { return HairpinIO.pullCapacity }
    let now = clock.monotonic
    let own = sides[side].bucket.available(now: now)
    guard own > 0 else {
      schedule.park(side, until: sides[side].bucket.opens(now: now), priority: sides[side].priority)
      return nil
    }
    // A message may be a train of 64 KiB, or a packet of a hundred bytes. Too many are repaid by waiting.
    return min(HairpinIO.pullCapacity, max(1, min(own, total.available(now: now)) / 16_384))
  }

  // MARK: Ends

  /// Looks at some hairpins, so that ten thousand idle ones hold no packet up.
  private mutating func sweep() {
    nextSweep = clock.monotonic.adding(nanoseconds: HairpinEngine.sweepInterval)
    for _ in 0..<min(max(HairpinEngine.hairpinsPerSweep, (hairpins.count + 19) / 20), hairpins.count) {
      let index = sweepPlace
      sweepPlace = index + 1 < hairpins.count ? index + 1 : 0
      guard usage[index].isOpen, let hairpin = hairpins[index] else { continue }
      let (first, second) = (sides[2 * index].lastHeard, sides[2 * index + 1].lastHeard)
      let verdict = hairpin.life.verdict(clock, bytes: usage[index].bytes, lastData: usage[index].lastData) {
        $0 == .first ? first : second
      }
      if let verdict { finish(index, verdict) }
    }
    guard sweepsLeft == 0 else {
      sweepsLeft -= 1
      return
    }
    sweepsLeft = HairpinEngine.sweepsPerLook - 1
    looks &+= 1
    sweepUnproven()
    isHeldUp = false
    for side in heldUp where sides[side].isAllocated && sides[side].listener >= 0 { accept(side) }
    heldUp = []
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
    if sides[side].encapsulation == .tcp {
      closeStream(side)
      dropUnproven(of: side)
    } else if sides[side].descriptor >= 0 {
      if stagedSide == side { flush() }
      sides[side].dropped += UDPSocket.kernelDrops(sides[side].descriptor)
      // The request holds the socket, and with it the port.
      if sides[side].isReceiving { io.cancel(HairpinEngine.token(.receive, side, marks[side].stream)) }
      if sides[side].isPolled { io.cancel(HairpinEngine.token(.readable, side, marks[side].stream)) }
      // What is staged for this descriptor goes before it is closed.
      io.ring.submit()
      KernelSocket.close(sides[side].descriptor)
    }
    if sides[side].listener >= 0 {
      io.cancel(HairpinEngine.token(.accept, side, marks[side].port))
      KernelSocket.close(sides[side].listener)
    }
    marks[side].port &+= 1
    marks[side].stream &+= 1
    sides[side].descriptor = -1
    sides[side].listener = -1
    sides[side].isAllocated = false
    sides[side].isProven = false
    sides[side].isReceiving = false
    sides[side].isPolled = false
  }

  /// Sends a message to a side's proven address.
  mutating func tell(_ side: Int, _ bytes: [UInt8]) {
    if sides[side].encapsulation == .tcp { return putMessage(bytes, to: side) }
    _ = UDPSocket.send(sides[side].descriptor, bytes, to: sides[side].name)
  }

  /// Ends all hairpins and closes.
  mutating func close() {
    for index in 0..<hairpins.count where hairpins[index] != nil { finish(index, .stopping) }
    abandon()
  }

  /// Closes without a word to anybody.
  mutating func abandon() {
    for side in 0..<sides.count where sides[side].isAllocated { release(side) }
    for place in 0..<unproven.capacity where unproven.isOpen(place) { drop(unproven: place) }
    for (index, control) in controls.enumerated() {
      for kind in [HairpinIO.Kind.control, HairpinIO.Kind.controlReadable, HairpinIO.Kind.listener] {
        io.cancel(Token(owner: 0, kind: kind, value: index))
      }
      KernelSocket.close(control.datagrams)
      KernelSocket.close(control.listener)
    }
    controls = []
    // The kernel lets go of the ports when it has worked off the cancellations.
    for _ in 0..<3 {
      io.ring.submitAndWait(nanoseconds: 0)
      while let completion = io.ring.nextCompletion() {
        if completion.token.kind == HairpinIO.Kind.send.rawValue {
          completeSend(completion.token.value, completion.result)
        }
      }
    }
    statistics.hairpins = 0
  }
}
