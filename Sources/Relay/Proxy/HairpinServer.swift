import Glibc
import PacketIO
import Transports

/// A hairpin proxy's body, driven by turns of one thread.
///
/// A turn: 1. submits what the last one left to send, and waits in the ring until something has come, a bucket has filled
/// or a check is due; 2. forwards what the kernel hands over of sides without a limit, and notes which other sides and
/// which strangers have something; 3. serves those sides in the order of `Schedule`, a batch each, for two milliseconds at
/// most; 4. serves strangers for their share of that time; 5. arms again what has ended, and now and then looks for
/// hairpins that are over. What a hairpin may not send yet stays in the kernel's socket, so no packet waits in the process.
///
/// Who does what: `Engine` moves datagrams and knows the sides, `StreamForwarding` the streams, `Admission` decides who may
/// use the proxy, `HairpinHost` says what follows from that; here they are put together.
struct HairpinServer: HairpinHost, ~Copyable {
  private static let sweepInterval: UInt64 = 50_000_000
  /// Sweeps from one look at unauthenticated streams and figures to the next.
  private static let sweepsPerLook = 4
  /// Hairpins that a sweep looks at: so many, or where there are more, as many as have all been looked at within a second.
  private static let hairpinsPerSweep = 256
  /// Batches that are served in one turn at most, and nanoseconds after which none begins: what the kernel hands over and
  /// strangers are never far.
  private static let batchesPerTurn = 64
  private static let turnLimit: UInt64 = 2_000_000
  /// The same for strangers, and datagrams that are read at a time.
  private static let strangersPerTurn = 64
  private static let datagramsAtATime = 8

  let options: HairpinProxyOptions
  var engine: Engine
  var streams: StreamForwarding
  var admission: Admission
  /// Nil: it is no identity relay.
  var identities: IdentityRelay?
  /// What is shown at ports for encrypted streams, which another may take the place of; nil: there are none.
  let certificate: TLSContext?
  /// What others than gateways find there.
  var web: WebFront
  var controls: [ControlPort] = []
  var strangers = StrangerWork()
  var sharedBacklog = SharedBacklog()
  /// Streams of gateways that have enrolled.
  var gateways = GatewayStreams()
  /// Which port each stream came to, by its place.
  var ports: FixedArray<AcceptingPort>
  /// Sides at whose ports no stream could be accepted: it is tried again at the next look.
  var pausedSides: [SideIndex] = []
  /// The descriptor that ends a wait; see `wake(by:)`.
  private var waker: Int32 = -1
  private var isActive = false
  private var nextSweep: MonotonicTime
  /// Sweeps until the next look at the rest.
  private var sweepsLeft = 0
  /// Looks at unauthenticated streams and figures so far, five a second.
  private(set) var looks: UInt64 = 0

  /// Opens the control ports in the calling thread's network namespace. Ports of gateways are opened by the thread
  /// that runs the turns, which must be in the same.
  init(_ options: HairpinProxyOptions, clock: HairpinClock) throws(SystemError) {
    OpenFiles.raiseLimit(wanted: options.openFiles)
    let engine = try Engine(options, clock: clock)
    let certificate = try HairpinServer.context(options)
    let streams = StreamForwarding(options, certificate)
    controls = try ControlPort.open(
      options.listen, encrypted: options.tls.listen, isShared: options.relay != nil)
    self.certificate = certificate
    // All else on the ring is owner 0's.
    web = WebFront(server: options.tls.webServer, owner: 1)
    self.options = options
    self.engine = engine
    ports = FixedArray(repeating: .control(listen: 0), count: streams.table.capacity)
    self.streams = streams
    admission = Admission(options, now: clock.monotonic)
    identities = options.relay.map { [cookies = admission.cookies] in
      IdentityRelay($0, cookies: cookies, now: clock.monotonic)
    }
    nextSweep = clock.monotonic
  }

  private static func context(_ options: HairpinProxyOptions) throws(SystemError) -> TLSContext? {
    guard !options.tls.listen.isEmpty else { return nil }
    do throws(TLSCertificate.Problem) {
      return try TLSContext(showing: options.tls.certificate)
    } catch {
      // That certificate and key are good, who made them has seen.
      throw TLSContext.unavailable
    }
  }

  // MARK: The turn

  /// Has a descriptor end the wait when it can be read; `turn` then returns true. Before the first turn.
  mutating func wake(by descriptor: Int32) { waker = descriptor }

  /// One turn that waits so many nanoseconds at most. `read` gives the time after the wait and after each batch. All turns
  /// are one thread's.
  /// - Returns: whether the waking descriptor has something.
  mutating func turn(waiting: UInt64, read: () -> HairpinClock) -> Bool {
    if !isActive { activate() }
    let untilSweep = nextSweep.nanoseconds(since: engine.clock.monotonic)
    var limit = strangers.isEmpty && !gateways.hasReady && sharedBacklog.isEmpty ? min(waiting, untilSweep) : 0
    // Its buffers come back with what is being sent.
    if identities != nil, engine.io.canPush, controls.contains(where: { !$0.isReceiving }) {
      limit = min(limit, 100_000)
    }
    if let due = identities?.waiting.nextDue { limit = min(limit, due.nanoseconds(since: engine.clock.monotonic)) }
    engine.io.ring.submitAndWait(nanoseconds: engine.waitLimit(limit))
    engine.clock = read()
    let begin = engine.clock.monotonic
    let forwarded = engine.statistics[.forwardedPackets]
    var isWoken = false
    for completion in sharedBacklog.begin() { complete(completion) }
    while let completion = engine.io.ring.nextCompletion() {
      if completion.token.kind == RelayIO.Kind.wake.rawValue { isWoken = true } else { complete(completion) }
    }
    engine.flushShared()
    SharedPorts.sendDue(&self)
    streams.flush(&engine)
    gateways.flush(&streams.table, now: engine.clock.monotonic)
    serve(read)
    SharedStreams.serve(&self, read)
    SharedStreams.settle(&self)
    if !strangers.isEmpty {
      engine.clock = read()
      let hasForwarded = engine.statistics[.forwardedPackets] != forwarded
      strangers.grant(forwarding: hasForwarded ? engine.clock.monotonic.nanoseconds(since: begin) : nil)
      serveStrangers(read)
    }
    engine.io.topUp()
    arm()
    if engine.clock.monotonic >= nextSweep { sweep() }
    return isWoken
  }

  /// Has the ring say again when the waking descriptor can be read.
  mutating func pollWaker() {
    if waker >= 0 { engine.io.pollReadable(waker, token: Token(owner: 0, kind: RelayIO.Kind.wake)) }
  }

  private mutating func activate() {
    isActive = true
    PipePool.ignoreBrokenPipes()
    engine.io.activate()
    pollWaker()
    arm()
  }

  private mutating func complete(_ completion: Completion) {
    if web.owns(completion) { return RelayWeb.complete(completion, &self) }
    let token = completion.token
    guard let kind = RelayIO.Kind(rawValue: token.kind) else { return }
    switch kind {
    case .send:
      if let (number, failed) = engine.completeShared(token.value, completion.result) {
        SharedPorts.settle(number, failed, &self)
      } else {
        engine.completeSend(token.value, completion.result)
      }
    case .shared: if !sharedBacklog.takes(completion) { SharedPorts.take(completion, &self) }
    case .receive: DatagramForwarding.receive(completion, &self)
    case .readable:
      guard let side = engine.side(token) else { return }
      engine.sides[side].receive.isPolled = false
      engine.state.markReady(side)
    case .control: if controls.indices.contains(token.value) { strangers.append(.datagrams(listen: token.value)) }
    case .listener: if controls.indices.contains(token.value) { strangers.append(.arrivals(listen: token.value)) }
    case .accept:
      guard let side = engine.side(token) else { return }
      strangers.append(.sideArrivals(side, mark: engine.sides[side].port.mark))
    case .streamReadable:
      guard let place = streams.place(token) else { return }
      streams.table[place].isReceiving = false
      if streams.table[place].isUnauthenticated {
        strangers.append(.stream(place: place, number: streams.table[place].number))
      } else {
        switch ports[place] {
        case .side(let side): engine.state.markReady(side)
        case .gateway: gateways.markReady(place)
        case .control:
          if web.serves(place) { strangers.append(.stream(place: place, number: streams.table[place].number)) }
        }
      }
    case .streamWritable:
      guard let place = streams.place(token) else { return }
      streams.table[place].isSending = false
      if streams.table[place].isUnauthenticated { return StrangerStreams.push(place, &self) }
      switch ports[place] {
      case .side(let side): streams.push(side, &engine)
      case .gateway: gateways.push(place, &streams.table, now: engine.clock.monotonic)
      case .control: StrangerStreams.push(place, &self)
      }
    case .wake, .cancelled: break
    }
  }

  private mutating func serve(_ read: () -> HairpinClock) {
    let begin = engine.clock.monotonic
    engine.state.schedule.wake(now: begin)
    for _ in 0..<HairpinServer.batchesPerTurn {
      guard let side = engine.nextSide() else { return }
      guard engine.sides[side].port.isAllocated, !streams.mustWait(side, &engine),
        let limit = engine.state.allowance(side)
      else { continue }
      let before = engine.clock.monotonic
      let isDatagrams = engine.sides[side].port.encapsulation == .udp
      charge(
        side,
        isDatagrams
          ? DatagramForwarding.serve(side, limit: limit, &self)
          : streams.serve(side, limit: limit, &engine, &admission))
      // What it sends belongs to the batch, and so does the time that takes.
      engine.io.ring.submit()
      engine.clock = read()
      engine.sides[side].adapt(toCost: engine.clock.monotonic.nanoseconds(since: before))
      guard engine.clock.monotonic.nanoseconds(since: begin) < HairpinServer.turnLimit else { return }
    }
  }

  private mutating func serveStrangers(_ read: () -> HairpinClock) {
    for _ in 0..<HairpinServer.strangersPerTurn {
      guard let item = strangers.take() else { return }
      let before = engine.clock.monotonic
      switch item {
      case .datagrams(let listen): serveControl(listen)
      case .arrivals(let listen): StrangerStreams.accept(listen: listen, &self)
      case .sideArrivals(let side, let mark):
        if engine.sides[side].port.mark == mark { StrangerStreams.accept(side: side, &self) }
      case .stream(let place, let number):
        if streams.table.isCurrent(place, number), streams.table[place].isUnauthenticated || web.serves(place) {
          StrangerStreams.serve(place, &self)
        }
      }
      engine.clock = read()
      strangers.spend(engine.clock.monotonic.nanoseconds(since: before))
    }
  }

  private mutating func arm() {
    for index in controls.indices {
      controls[index].listener.poll(
        now: engine.clock.monotonic, token: Token(owner: 0, kind: RelayIO.Kind.listener, value: index),
        ring: &engine.io.ring)
      guard !controls[index].isReceiving else { continue }
      if identities != nil, engine.io.canPush {
        guard engine.io.hasBuffers else { continue }
        engine.io.receive(controls[index].datagrams, token: Token(owner: 0, kind: RelayIO.Kind.shared, value: index))
      } else {
        engine.io.pollReadable(
          controls[index].datagrams, token: Token(owner: 0, kind: RelayIO.Kind.control, value: index))
      }
      controls[index].isReceiving = true
    }
    engine.arm()
  }

  // MARK: Control ports

  /// Answers what came to a control port.
  private mutating func serveControl(_ index: Int, _ message: RelayIO.Message) {
    guard !message.isTruncated, let sender = SocketName.endpoint(message.name) else {
      engine.statistics[.truncated] += 1
      return
    }
    guard message.bytes.count <= HairpinMessage.mostBytes else {
      engine.statistics[.malformed] += 1
      return
    }
    // The answer leaves from where the question came to: firewalls on the way take no other.
    let local = ReceivedMessage.destination(message.control)
    if let answer = answer(message.bytes.array(), sender, toControl: index, at: local, .udp) {
      _ = UDPSocket.send(controls[index].datagrams, answer.bytes, to: SocketName(sender), from: local)
    }
  }

  /// Reads a few datagrams of a control port; the rest waits for its turn.
  private mutating func serveControl(_ index: Int) {
    let isEmpty = engine.io.pull(controls[index].datagrams, limit: HairpinServer.datagramsAtATime)
    if isEmpty { controls[index].isReceiving = false } else { strangers.append(.datagrams(listen: index)) }
    for number in 0..<engine.io.pulledCount {
      let message = engine.io.pulledMessage(number)
      if identities != nil { SharedPorts.take(message, port: index, &self) } else { serveControl(index, message) }
      engine.io.pool.release(message.buffer)
    }
  }

  /// What is answered to a message on a control port; nil: nothing.
  /// - Parameter local: the address of this machine that it was sent to; nil: the one that is listened on.
  mutating func answer(
    _ bytes: [UInt8], _ sender: Endpoint, toControl listen: Int, at local: IPAddress? = nil,
    _ encapsulation: Encapsulation
  ) -> Admission.Answer? {
    let endpoint = controls[listen].endpoint
    let control = Admission.ControlAddress(listen: listen, address: local ?? endpoint.address, port: endpoint.port)
    return answer(bytes, sender, toControl: control, encapsulation)
  }

  // MARK: What hairpins need of it

  var policy: RelayPolicy? { mutating get { identities?.policy } }

  var state: EngineState {
    @inline(__always) _read { yield engine.state }
    @inline(__always) _modify { yield &engine.state }
  }

  mutating func decide<Value>(_ body: (inout Admission, inout EngineState) -> Value) -> Value {
    body(&admission, &engine.state)
  }

  mutating func open(
    _ side: SideIndex, _ encapsulation: Encapsulation, for control: Admission.ControlAddress
  ) -> HairpinReason? {
    controls[control.listen].isEncrypted
      ? engine.sharePort(side, encapsulation, control.port, at: control.address, listen: control.listen)
      : engine.openPort(side, encapsulation, at: control.address, listen: control.listen, of: options.ports)
  }

  mutating func release(_ side: SideIndex) {
    if engine.sides[side].port.encapsulation == .tcp {
      streams.close(side, &engine)
      StrangerStreams.drop(of: side, &self)
    } else if engine.stagedSide == side {
      streams.flush(&engine)
    }
    engine.closePort(side)
  }

  mutating func tell(_ side: SideIndex, _ bytes: [UInt8]) {
    if engine.sides[side].port.encapsulation == .tcp { return streams.putMessage(bytes, to: side, &engine) }
    _ = say(bytes, from: side, to: engine.sides[side].holder.name)
  }

  mutating func say(_ bytes: [UInt8], from side: SideIndex, to name: SocketName) -> Bool {
    UDPSocket.send(engine.sides[side].port.socket, bytes, to: name) == 0
  }

  mutating func stage(_ run: ForwardBatch.Run, _ side: SideIndex) { streams.stage(run, side, &engine) }

  // MARK: Ends

  /// Looks at some hairpins, so that ten thousand idle ones hold no packet up.
  private mutating func sweep() {
    nextSweep = engine.clock.monotonic.adding(nanoseconds: HairpinServer.sweepInterval)
    if identities != nil { SharedPorts.sweep(&self) }
    sweepHairpins(max(HairpinServer.hairpinsPerSweep, (admission.hairpins.capacity + 19) / 20))
    guard sweepsLeft == 0 else {
      sweepsLeft -= 1
      return
    }
    sweepsLeft = HairpinServer.sweepsPerLook - 1
    looks &+= 1
    StrangerStreams.sweep(&self)
    if identities != nil { SharedStreams.sweep(&self) }
    RelayWeb.sweep(&self)
    let paused = pausedSides
    pausedSides = []
    for side in paused where engine.sides[side].port.isAllocated && !engine.accept(side) { pausedSides.append(side) }
    engine.statistics.hairpins = admission.hairpins.count
    engine.statistics.remembered = admission.remembered
  }

  /// Ends all hairpins and closes.
  mutating func close() {
    for hairpin in 0..<admission.hairpins.capacity { finish(hairpin, .stopping) }
    abandon()
  }

  /// Closes without a word to anybody.
  mutating func abandon() {
    for place in 0..<engine.sides.count where engine.sides[SideIndex(place: place)].port.isAllocated {
      release(SideIndex(place: place))
    }
    for place in streams.table.allUnauthenticated { StrangerStreams.drop(place, &self) }
    SharedStreams.sweep(all: true, &self)
    RelayWeb.close(&self)
    for (index, control) in controls.enumerated() {
      for kind in [RelayIO.Kind.control, RelayIO.Kind.listener, RelayIO.Kind.shared] {
        engine.io.cancel(Token(owner: 0, kind: kind, value: index))
      }
      control.close()
    }
    controls = []
    strangers = StrangerWork()
    // The kernel lets go of the ports when it has worked off the cancellations.
    for _ in 0..<3 {
      engine.io.ring.submitAndWait(nanoseconds: 0)
      while let completion = engine.io.ring.nextCompletion() {
        if completion.token.kind == RelayIO.Kind.send.rawValue,
          engine.completeShared(completion.token.value, completion.result) == nil
        {
          engine.completeSend(completion.token.value, completion.result)
        }
      }
    }
    engine.statistics.hairpins = 0
  }
}
