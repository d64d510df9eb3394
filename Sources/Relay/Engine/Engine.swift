import Glibc
import PacketIO
import Transports

/// What a relay works with: its ring and buffers, what is staged to be sent, and the state that needs no kernel. It moves
/// bytes and counts them, and decides about no hairpin.
struct Engine: ~Copyable {
  /// Bytes that the kernel may queue for a side in each direction; it is also the queue of one whose bandwidth is used
  /// up.
  static let socketBuffer: Int32 = 2 << 20

  var io: RelayIO
  var batch: ForwardBatch
  /// The side whose packets are staged.
  var stagedSide: SideIndex?
  /// Or who else they go to.
  var stagedShared: SharedDestination?
  var state: EngineState
  /// Sides whose receive is to be armed at the end of the turn.
  private var unarmed: FixedArray<SideIndex>

  init(_ options: HairpinProxyOptions, clock: HairpinClock) throws(SystemError) {
    // What can fail comes first: a noncopyable value is initialised whole or not at all.
    let io = try RelayIO(allowed: options.allowedFeatures)
    batch = ForwardBatch(pool: io.pool)
    self.io = io
    state = EngineState(options, clock: clock)
    unarmed = FixedArray(capacity: state.sides.count)
  }

  var sides: Sides {
    @inline(__always) _read { yield state.sides }
    @inline(__always) _modify { yield &state.sides }
  }

  var statistics: HairpinStatistics {
    @inline(__always) _read { yield state.statistics }
    @inline(__always) _modify { yield &state.statistics }
  }

  var clock: HairpinClock {
    @inline(__always) get { state.clock }
    @inline(__always) set { state.clock = newValue }
  }

  // MARK: Tokens

  /// What a completion for a place carries: the place in 20 bits, and a mark of its present use in 28.
  static func token(_ kind: RelayIO.Kind, _ place: Int, mark: UInt64) -> Token {
    Token(owner: 0, kind: kind, value: Int(truncatingIfNeeded: mark & 0xFFF_FFFF) << 20 | place)
  }

  static func place(_ token: Token) -> Int { token.value & 0xF_FFFF }

  static func isCurrent(_ token: Token, mark: UInt64) -> Bool {
    token.value >> 20 == Int(truncatingIfNeeded: mark & 0xFFF_FFFF)
  }

  /// What a completion for a side's port carries.
  func token(_ kind: RelayIO.Kind, _ side: SideIndex) -> Token {
    Engine.token(kind, side.place, mark: UInt64(sides[side].port.mark))
  }

  /// Whose port a completion is for; nil: it has gone.
  func side(_ token: Token) -> SideIndex? {
    let side = SideIndex(place: Engine.place(token))
    return Engine.isCurrent(token, mark: UInt64(sides[side].port.mark)) ? side : nil
  }

  // MARK: Who is served next

  /// The next side whose turn it is; nil when there is none, or no room for what it may bring.
  mutating func nextSide() -> SideIndex? {
    guard batch.room >= RelayIO.pullCapacity, io.pool.available >= RelayIO.pullCapacity else { return nil }
    return state.nextSide()
  }

  /// How long the next wait may be, in nanoseconds.
  mutating func waitLimit(_ limit: UInt64) -> UInt64 {
    // Their buffers come back with what is being sent.
    state.waitLimit(unarmed.isEmpty ? limit : min(limit, 100_000))
  }

  // MARK: Receiving datagrams

  /// Whether what comes from a datagram side is forwarded as it comes: nothing has to be decided about it.
  private func isPushed(_ side: SideIndex) -> Bool { io.canPush && state.mayPush(side) }

  /// Has a datagram side received from, in the way that suits it now, from the end of the turn on.
  mutating func receive(_ side: SideIndex) {
    guard !sides[side].receive.isUnarmed else { return }
    sides[side].receive.isUnarmed = unarmed.tryAppend(side)
  }

  /// A side's partner is of another kind now: it is received from in another way, perhaps.
  mutating func partnerChanged(_ side: SideIndex) {
    guard sides[side].port.isAllocated, sides[side].port.encapsulation == .udp, sides[side].receive.isArmed,
      !isPushed(side)
    else { return }
    io.cancel(token(.receive, side))
  }

  /// Arms what has ended, once a turn.
  mutating func arm() {
    guard io.hasBuffers || !io.canPush else { return }
    while let side = unarmed.popLast() {
      sides[side].receive.isUnarmed = false
      guard sides[side].port.isAllocated, sides[side].port.encapsulation == .udp, !sides[side].receive.isArmed else {
        continue
      }
      if isPushed(side) {
        sides[side].receive.isArmed = true
        io.receive(sides[side].port.socket, token: token(.receive, side))
      } else if !sides[side].receive.isPolled {
        sides[side].receive.isPolled = true
        io.pollReadable(sides[side].port.socket, token: token(.readable, side))
      }
    }
  }

  // MARK: Sending datagrams

  /// Submits what is staged to a datagram side, in runs that make one message each.
  mutating func sendStaged(from side: SideIndex) {
    let partner = side.partner
    let sent = batch.send(
      sides[partner].port.socket, to: sides[partner].holder.name, sender: token(.send, side).value, ring: &io.ring)
    state.account(side, packets: sent.packets, octets: Int(sent.bytes), isTaken: true)
  }

  /// Takes back from the books what was not taken after all.
  mutating func completeSend(_ index: Int, _ result: Int32) {
    let sender = side(Token(owner: 0, kind: 0, value: batch.sender(index)))
    let open = sender.map { sides[$0.partner].port.socket } ?? -1
    let failed = batch.complete(index, result: result, open: open, pool: io.pool)
    guard failed.packets > 0 else { return }
    statistics[.forwardedPackets] &-= failed.packets
    statistics[.forwardedBytes] &-= failed.bytes
    statistics[.notTaken] &+= failed.packets
    guard let sender else { return }
    sides[sender].traffic.packets &-= failed.packets
    sides[sender].traffic.bytes &-= failed.bytes
    sides[sender].traffic.dropped &+= failed.packets
  }

  // MARK: Ports

  /// Opens a port for a side, on any of a range that is free.
  /// - Returns: nil, or why there is none.
  mutating func openPort(
    _ side: SideIndex, _ encapsulation: Encapsulation, at address: IPAddress, listen: Int, of ports: ClosedRange<UInt16>
  ) -> HairpinReason? {
    var random = SystemRandomNumberGenerator()
    let count = UInt32(ports.upperBound - ports.lowerBound) + 1
    let start = UInt32.random(in: 0..<count, using: &random)
    // A full range is noticed soon: of a range that is nine tenths full, one try in ten succeeds.
    for attempt in 0..<min(count, 64) {
      let number = ports.lowerBound + UInt16((start + attempt) % count)
      let endpoint = Endpoint(address: address, port: number)
      let descriptor =
        encapsulation == .udp
        ? UDPSocket.open(endpoint, waits: true, bufferSize: Engine.socketBuffer)
        : TCPSocket.listen(endpoint, waits: false)
      if descriptor == -EADDRINUSE { continue }
      guard descriptor >= 0 else { return .noPort }
      state.open(
        side, encapsulation, number, at: address, listen: listen, token: .random(using: &random))
      if encapsulation == .udp {
        sides[side].port.socket = descriptor
      } else {
        sides[side].port.listener = PolledListener(descriptor)
      }
      if encapsulation == .udp { receive(side) } else { accept(side) }
      partnerChanged(side.partner)
      return nil
    }
    return .noPort
  }

  /// Gives a side the port that it has spoken to, which it shares with others: its streams are inside TLS, and networks
  /// that let out nothing else let nothing to another port.
  /// - Returns: nil, or why there is none.
  mutating func sharePort(
    _ side: SideIndex, _ encapsulation: Encapsulation, _ number: UInt16, at address: IPAddress, listen: Int
  ) -> HairpinReason? {
    guard encapsulation == .tcp else { return .encapsulationNotAllowed }
    var random = SystemRandomNumberGenerator()
    state.open(side, encapsulation, number, at: address, listen: listen, token: .random(using: &random))
    partnerChanged(side.partner)
    return nil
  }

  /// Has the ring say when a stream comes to a side's port.
  /// - Returns: false when that has to wait.
  @discardableResult
  mutating func accept(_ side: SideIndex) -> Bool {
    let (token, now) = (token(.accept, side), clock.monotonic)
    return state.sides[side].port.listener?.poll(now: now, token: token, ring: &io.ring) ?? true
  }

  /// Closes a side's port, of which nothing is staged any more; its figures stay.
  mutating func closePort(_ side: SideIndex) {
    let port = sides[side].port
    if port.socket >= 0 {
      sides[side].traffic.dropped += UDPSocket.kernelDrops(port.socket)
      // The request holds the socket, and with it the port.
      if sides[side].receive.isArmed { io.cancel(token(.receive, side)) }
      if sides[side].receive.isPolled { io.cancel(token(.readable, side)) }
      // What was submitted for this descriptor goes before it is closed.
      io.ring.submit()
      KernelSocket.close(port.socket)
    }
    if let listener = port.listener {
      io.cancel(token(.accept, side))
      io.ring.submit()
      listener.close()
    }
    state.close(side)
  }
}
