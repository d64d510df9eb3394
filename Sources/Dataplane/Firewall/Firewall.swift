package import PacketIO

/// What the firewall says about a packet, and why.
package struct Verdict: BitwiseCopyable, Sendable, Equatable {
  /// Nil: it passes.
  package var refusal: DropReason?
  /// What judged the flow it belongs to, or the packet itself.
  package var ground: FirewallGround
  /// It belongs to a flow that was known before.
  package var isKnown: Bool

  @inline(__always) package var passes: Bool { refusal == nil }
}

/// The firewall of one worker: asks the policy about flows that begin, and remembers those that passed.
///
/// For each packet, or superpacket of one flow:
/// 1. Fragments: the first of a datagram is judged like a packet, later ones follow it (`FirewallFragments.swift`).
/// 2. The flow is looked up by addresses, protocol and ports. ICMP errors are looked up by the packet they quote.
/// 3. A known flow is judged anew when the policy has changed since; then the packet must fit its state.
/// 4. A packet that begins a flow is judged by access list, rules and default policy.
/// 5. `judge` then enters what changed and counts; `explain` does all but that.
///
/// Pure: bytes and time are the caller's, and so is the randomness it starts with.
package struct Firewall: ~Copyable {
  typealias Decision = FirewallDecision

  private(set) var policy: FirewallPolicy?
  var table: FlowTable
  var fragments: FragmentTable
  var log = FirewallLog()
  /// By `FirewallGround.place`.
  private(set) var counters = FirewallCounters()
  private var version: UInt32 = 0
  private var enforcesWindows = false
  private var tracksAll = false
  private var timeouts = FlowTable.timeouts(FirewallTimeouts())
  private var establishedTimeouts: (tcp: UInt32, udp: UInt32) = (0, 0)
  /// Tests go the long way only, to compare.
  var usesShortWay = true
  private let hash: FlowHash

  /// How many firewalls share the room for flows that the policy gives.
  private let workers: Int

  /// - Parameters:
  ///   - random: of a kind that nobody outside can guess.
  ///   - workers: how many have a firewall each, which share the room for flows.
  package init(using random: inout some RandomNumberGenerator, workers: Int = 1) {
    self.workers = workers
    hash = FlowHash(using: &random)
    table = FlowTable(flowCapacity: 0, pendingCapacity: 0, hash: hash)
    fragments = FragmentTable(hash: hash)
  }

  /// This firewall's part of a room for so many flows.
  func share(of flows: Int) -> Int { max(flows / workers, 1) }

  /// Who has how many flows, and datagrams in fragments.
  func shares() -> [ShareReport] { table.shares() + [fragments.shares(), log.held.report()] }

  // MARK: Policy

  /// Goes by another policy from now on. Flows are judged by it when their next packet comes. The memory for flows is
  /// set aside when the first policy that needs it comes.
  package mutating func adopt(_ new: FirewallPolicy) {
    guard new !== policy else { return }
    if let policy, policy.rules === new.rules, policy.isActive == new.isActive {
      // Other peers, or other access lists.
      self.policy = new
      version = new.version
      return
    }
    let isOtherMode = new.configuration.mode != policy?.configuration.mode
    if new.isActive, table.flowCapacity == 0 {
      table = FlowTable(
        flowCapacity: share(of: new.configuration.flowCapacity),
        pendingCapacity: share(of: new.configuration.pendingCapacity), hash: hash)
    } else if isOtherMode || !new.isActive {
      // Other modes do not see every packet, so what is known of connections may not be true any more.
      table.removeAll()
      fragments.removeAll()
    }
    counters.carry(from: policy, to: new)
    policy = new
    version = new.version
    enforcesWindows = new.configuration.mode == .on
    tracksAll = new.configuration.mode == .on
    timeouts = FlowTable.timeouts(new.configuration.timeouts)
    establishedTimeouts = (
      timeouts[Int(FlowKind.tcp.rawValue) * 8 + Int(FlowPhase.established.rawValue)],
      timeouts[Int(FlowKind.udp.rawValue) * 8 + Int(FlowPhase.established.rawValue)]
    )
  }

  /// Forgets a part of the flows that have expired; all of them within a minute when called ten times a second.
  package mutating func sweep(now: MonotonicTime) {
    table.sweep(table.flows.count / 600 + 64, ticks: FlowClock.ticks(now), timeouts: timeouts)
  }

  // MARK: Fetching ahead

  /// Whether the table is so large that its flows are seldom in the cache: then it pays to have them fetched some
  /// packets before they are needed.
  @inline(__always)
  package var isLarge: Bool { table.flows.count > 8192 }

  /// A flow that will be asked for soon.
  package struct AnticipatedFlow: BitwiseCopyable {
    var tag: UInt32
    var isTCP: Bool
  }

  /// The flow of a packet that will be judged soon; has the place fetched where the search for it begins.
  @inline(__always)
  package borrowing func anticipate(
    _ packet: InnerPacket, _ bytes: PacketBytes, _ direction: TrafficDirection
  ) -> AnticipatedFlow? {
    let at = packet.transportOffset
    let isTCP = packet.transport == IPProtocol.tcp
    guard !packet.isFragment, isTCP || packet.transport == IPProtocol.udp, bytes.count &- at >= 8 else { return nil }
    let tag = table.tag(FlowKey(packet, bytes, ports: bytes.load32(at), direction))
    table.fetchSlot(tag: tag)
    return AnticipatedFlow(tag: tag, isTCP: isTCP)
  }

  /// Has the flow itself fetched.
  @inline(__always)
  package borrowing func fetch(_ flow: AnticipatedFlow) { table.fetchFlow(tag: flow.tag, whole: flow.isTCP) }

  // MARK: Judging

  /// Judges a packet and remembers what follows from it.
  ///
  /// - Parameters:
  ///   - bytes: the packet, or its beginning: at least all headers; ICMP errors and fragments are whole.
  ///   - length: bytes of the whole packet, of all segments of a superpacket with the headers once.
  ///   - packets: its segments, and `octets` their bytes in all, to be counted.
  ///   - flow: what `anticipate` has found.
  @inline(__always)
  package mutating func judge(
    _ packet: InnerPacket, _ bytes: PacketBytes, length: Int, packets: Int, octets: Int, direction: TrafficDirection,
    flow: AnticipatedFlow? = nil, now: MonotonicTime
  ) -> Verdict {
    let ticks = FlowClock.ticks(now)
    let verdict: Verdict
    if let ground = judgeEstablished(packet, bytes, length: length, direction, flow, ticks: ticks) {
      verdict = Verdict(refusal: nil, ground: ground, isKnown: true)
    } else {
      verdict = judgeOther(packet, bytes, length: length, direction, ticks: ticks, now: now)
    }
    counters.add(verdict.ground, packets: packets, bytes: octets)
    return verdict
  }

  /// The short way for nearly every packet: one of an established flow that changes nothing but numbers. Whatever is
  /// not quite that, goes the long way, on which it would be judged the same.
  @inline(__always)
  private mutating func judgeEstablished(
    _ packet: InnerPacket, _ bytes: PacketBytes, length: Int, _ direction: TrafficDirection, _ flow: AnticipatedFlow?,
    ticks: UInt32
  ) -> FirewallGround? {
    let at = packet.isV4 ? 20 : 40
    let isTCP = packet.transport == IPProtocol.tcp
    guard usesShortWay, packet.transportOffset == at, !packet.isFragment, isTCP || packet.transport == IPProtocol.udp,
      bytes.count &- at >= (isTCP ? 20 : 8)
    else { return nil }
    let key = FlowKey(packet, bytes, ports: bytes.load32(at), direction)
    let place = table.find(key, tag: flow?.tag ?? table.tag(key))
    guard place >= 0, table.flows[place].segment == .established, table.flows[place].phase == .established,
      table.flows[place].version == version,
      ticks &- table.flows[place].lastSeen <= (isTCP ? establishedTimeouts.tcp : establishedTimeouts.udp)
    else { return nil }
    if isTCP {
      guard let segment = TCPSegment(bytes, at: at, length: length), segment.isPlain,
        table.flows[place].connection.carry(
          segment, from: direction, isLoose: table.flows[place].isLoose || !enforcesWindows)
      else { return nil }
    }
    table.flows[place].lastSeen = ticks
    return table.flows[place].ground
  }

  @inline(never)
  private mutating func judgeOther(
    _ packet: InnerPacket, _ bytes: PacketBytes, length: Int, _ direction: TrafficDirection, ticks: UInt32,
    now: MonotonicTime
  ) -> Verdict {
    if packet.isFragment { return judgeFragment(packet, bytes, direction, ticks: ticks, now: now) }
    let decision = decide(packet, bytes, length: length, direction, ticks: ticks)
    commit(decision, packet, bytes, direction, ticks: ticks, now: now)
    return decision.verdict
  }

  /// What `judge` would say.
  package borrowing func explain(
    _ packet: InnerPacket, _ bytes: PacketBytes, length: Int, direction: TrafficDirection, now: MonotonicTime
  ) -> Verdict {
    let ticks = FlowClock.ticks(now)
    if packet.isFragment { return decideFragment(packet, bytes, direction, ticks: ticks).verdict }
    return decide(packet, bytes, length: length, direction, ticks: ticks).verdict
  }

  borrowing func decide(
    _ packet: InnerPacket, _ bytes: PacketBytes, length: Int, _ direction: TrafficDirection, ticks: UInt32,
    isFirstFragment: Bool = false
  ) -> Decision {
    if isSourceRouted(packet, bytes) { return .refused(.sourceRouted) }
    let source = packet.source(bytes)
    let destination = packet.destination(bytes)
    let local = direction == .outbound ? source : destination
    let remote = direction == .outbound ? destination : source
    if !tracksAll, !isLimited(remote) {
      return Decision(Verdict(refusal: nil, ground: .tunnelOnly, isKnown: false))
    }
    let at = packet.transportOffset
    switch packet.transport {
    case IPProtocol.tcp:
      guard let segment = TCPSegment(bytes, at: at, length: length) else { return .refused(malformed(direction)) }
      return decideTCP(
        FlowKey(packet, bytes, ports: bytes.load32(at), direction), segment, bytes, at: at, direction, ticks: ticks,
        isFragment: isFirstFragment)
    case IPProtocol.udp:
      guard bytes.count &- at >= 8 else { return .refused(malformed(direction)) }
      return decideFlow(FlowKey(packet, bytes, ports: bytes.load32(at), direction), .udp, direction, ticks: ticks)
    case packet.isV4 ? IPProtocol.icmp : IPProtocol.icmpV6:
      return decideICMP(packet, bytes, local: local, remote: remote, direction, ticks: ticks, isFirstFragment)
    default:
      let key = FlowKey(local: local, remote: remote, transport: packet.transport, localPort: 0, remotePort: 0)
      return decideFlow(key, .other, direction, ticks: ticks)
    }
  }

  @inline(__always)
  func isSourceRouted(_ packet: InnerPacket, _ bytes: PacketBytes) -> Bool {
    packet.transportOffset != (packet.isV4 ? 20 : 40) && SourceRoute.isPresent(packet, bytes)
  }

  @inline(__always)
  private func malformed(_ direction: TrafficDirection) -> DropReason {
    direction == .outbound ? .malformedPacket : .malformedInnerPacket
  }

  @inline(never)
  private borrowing func isLimited(_ remote: IPAddress) -> Bool { policy?.hasAccessList(remote) ?? false }

  // MARK: Flows without a state of their own

  private borrowing func decideFlow(
    _ key: FlowKey, _ kind: FlowKind, _ direction: TrafficDirection, ticks: UInt32
  ) -> Decision {
    let tag = table.tag(key)
    let place = table.find(key, tag: tag)
    guard place >= 0, !FlowTable.isExpired(table.flows[place], ticks: ticks, timeouts: timeouts) else {
      return decideOpening(key, kind, direction, tag: tag, replacing: place)
    }
    var decision = Decision(Verdict(refusal: nil, ground: table.flows[place].ground, isKnown: true))
    if table.flows[place].version != version, !isStillAllowed(place, &decision) { return decision }
    let phase = table.flows[place].phase
    decision.effect = .follow
    decision.place = place
    decision.kind = kind
    decision.phase = phase
    if phase != .established {
      let isOpener = table.flows[place].opener == direction
      // A query is over with its reply; but there may be several.
      if phase == .opening, !isOpener { decision.phase = .answered }
      if phase == .answered, isOpener, kind != .icmp { decision.phase = .established }
    }
    return decision
  }

  /// Judges a known flow by the present policy. False: it ends, and `decision` says why.
  @inline(never)
  private borrowing func isStillAllowed(_ place: Int, _ decision: inout Decision) -> Bool {
    guard let policy else { return false }
    let flow = table.flows[place]
    let judgement = policy.judge(flow.key.opening(by: flow.opener))
    decision.verdict.ground = judgement.ground
    guard let refusal = judgement.refusal else { return true }
    decision.verdict.refusal = refusal
    decision.effect = .end
    decision.place = place
    decision.logs = judgement.logs
    return false
  }

  @inline(never)
  private borrowing func decideOpening(
    _ key: FlowKey, _ kind: FlowKind, _ direction: TrafficDirection, tag: UInt32, replacing place: Int
  ) -> Decision {
    guard let policy else { return .refused(.firewallDefault) }
    let judgement = policy.judge(key.opening(by: direction))
    var decision = Decision(
      Verdict(refusal: judgement.refusal, ground: judgement.ground, isKnown: false))
    decision.logs = judgement.logs
    guard judgement.refusal == nil else { return decision }
    decision.effect = .open
    decision.kind = kind
    decision.place = place
    decision.tag = tag
    decision.key = key
    return decision
  }

  // MARK: TCP

  private borrowing func decideTCP(
    _ key: FlowKey, _ segment: TCPSegment, _ bytes: PacketBytes, at offset: Int, _ direction: TrafficDirection,
    ticks: UInt32, isFragment: Bool
  ) -> Decision {
    guard segment.isSane else { return .refused(.invalidConnectionState) }
    let tag = table.tag(key)
    let place = table.find(key, tag: tag)
    guard place >= 0, !FlowTable.isExpired(table.flows[place], ticks: ticks, timeouts: timeouts) else {
      return decideConnection(key, segment, bytes, at: offset, direction, tag: tag, replacing: place, isFragment)
    }
    var decision = Decision(Verdict(refusal: nil, ground: table.flows[place].ground, isKnown: true))
    if table.flows[place].version != version, !isStillAllowed(place, &decision) { return decision }
    let isLoose = table.flows[place].isLoose
    decision.connection = table.flows[place].connection
    let scale = segment.has(TCPSegment.syn) ? TCPSegment.windowScale(bytes, at: offset) : nil
    let step = decision.connection.follow(
      segment, scale: scale, from: direction, opener: table.flows[place].opener, phase: table.flows[place].phase,
      isLoose: isLoose || !enforcesWindows)
    switch step {
    case .follows(let phase):
      decision.effect = .follow
      decision.place = place
      decision.kind = .tcp
      decision.phase = phase
      // The rest of the datagram takes numbers too, and is not looked at.
      decision.isLoose = isLoose || isFragment
      return decision
    case .contradicts:
      return .refused(.invalidConnectionState, isKnown: true)
    case .begins:
      return decideConnection(key, segment, bytes, at: offset, direction, tag: tag, replacing: place, isFragment)
    }
  }

  /// A connection begins with a SYN. Another packet may be of one that began before this firewall did: it passes where
  /// a SYN would, and its windows are not enforced (RFC 6092 REC-31, REC-32).
  @inline(never)
  private borrowing func decideConnection(
    _ key: FlowKey, _ segment: TCPSegment, _ bytes: PacketBytes, at offset: Int, _ direction: TrafficDirection,
    tag: UInt32, replacing place: Int, _ isFragment: Bool
  ) -> Decision {
    let isOpening = segment.has(TCPSegment.syn)
    let isUnderWay = !isOpening && !segment.has(TCPSegment.rst)
    var decision = decideOpening(key, .tcp, direction, tag: tag, replacing: place)
    // A refusal says more than that there is no such connection.
    guard decision.verdict.passes else { return decision }
    guard isOpening && !segment.has(TCPSegment.ack) || isUnderWay else { return .refused(.invalidConnectionState) }
    decision.connection =
      isOpening
      ? TCPConnection(segment, scale: TCPSegment.windowScale(bytes, at: offset), from: direction)
      : TCPConnection(pickedUp: segment, from: direction)
    decision.isLoose = isUnderWay || isFragment
    return decision
  }

  // MARK: ICMP

  @inline(never)
  private borrowing func decideICMP(
    _ packet: InnerPacket, _ bytes: PacketBytes, local: IPAddress, remote: IPAddress, _ direction: TrafficDirection,
    ticks: UInt32, _ isFragment: Bool
  ) -> Decision {
    guard let policy else { return .refused(.firewallDefault) }
    let at = packet.transportOffset
    guard let message = ICMPMessage(bytes, at: at, isV4: packet.isV4) else { return .refused(malformed(direction)) }
    func key(_ type: UInt8, opener: TrafficDirection) -> FlowKey {
      FlowKey(
        local: local, remote: remote, transport: packet.transport, localPort: message.identifier,
        remotePort: FlowKey.queryPort(type: type, opener: opener))
    }
    switch message.role {
    case .query:
      return decideFlow(key(message.type, opener: direction), .icmp, direction, ticks: ticks)
    case .reply(let type):
      // An answer begins nothing.
      let question = key(type, opener: direction.opposite)
      let place = table.find(question, tag: table.tag(question))
      guard place >= 0, !FlowTable.isExpired(table.flows[place], ticks: ticks, timeouts: timeouts) else {
        return .refused(.invalidConnectionState)
      }
      return decideFlow(question, .icmp, direction, ticks: ticks)
    case .error:
      let quote = bytes.dropFirst(at + 8)
      if !isFragment, ICMPMessage.isChecksumRight(bytes, packet),
        let quoted = QuotedFlow(quote, isV4: packet.isV4, errorGoes: direction),
        quoted.source == packet.destination(bytes),
        let decision = decideError(quoted, from: packet.source(bytes), direction, ticks: ticks)
      {
        return decision
      }
    case .other: break
    }
    // What belongs to no flow passes only where the policy says so, and leaves nothing behind.
    let opening = FlowOpening(
      direction: direction, transport: packet.transport, source: packet.source(bytes),
      destination: packet.destination(bytes), icmpType: message.type)
    var judgement = policy.judge(opening)
    if message.role == .error, judgement.refusal == nil, judgement.ground == .outboundTraffic {
      // An explicit rule may; the default policy may not (RFC 5508 REQ-4 and REQ-5, RFC 6092 REC-10).
      judgement = FirewallPolicy.Judgement(refusal: .invalidConnectionState, ground: .none)
    }
    var decision = Decision(Verdict(refusal: judgement.refusal, ground: judgement.ground, isKnown: false))
    decision.logs = judgement.logs
    return decision
  }

  /// An error about a known flow passes with it. It neither refreshes nor ends the flow (RFC 5508 REQ-6, RFC 5382
  /// REQ-10, RFC 6092 REC-19 and REC-37). Nil: there is no such flow.
  private borrowing func decideError(
    _ quoted: QuotedFlow, from source: IPAddress, _ direction: TrafficDirection, ticks: UInt32
  ) -> Decision? {
    let place = table.find(quoted.key, tag: table.tag(quoted.key))
    guard place >= 0, !FlowTable.isExpired(table.flows[place], ticks: ticks, timeouts: timeouts) else { return nil }
    // Only who had the packet can tell what became of it: the side it went to.
    if policy?.mayReport(source, quoted.key, direction) == false {
      return .refused(.invalidConnectionState, isKnown: true)
    }
    var decision = Decision(Verdict(refusal: nil, ground: table.flows[place].ground, isKnown: true))
    if table.flows[place].version != version, !isStillAllowed(place, &decision) { return decision }
    if quoted.key.transport == IPProtocol.tcp, enforcesWindows, !table.flows[place].isLoose,
      !table.flows[place].connection.hasInFlight(quoted.sequence, from: direction.opposite)
    {
      return .refused(.invalidConnectionState, isKnown: true)
    }
    return decision
  }

  // MARK: Entering what changed

  mutating func commit(
    _ decision: Decision, _ packet: InnerPacket, _ bytes: PacketBytes, _ direction: TrafficDirection, ticks: UInt32,
    now: MonotonicTime
  ) {
    if decision.effect == .follow {
      let place = decision.place
      table.flows[place].lastSeen = ticks
      if decision.kind == .tcp { table.flows[place].connection = decision.connection }
      if decision.phase != .established || table.flows[place].segment != .established {
        commitPhase(decision)
      }
      if table.flows[place].version != version || decision.isLoose {
        table.flows[place].version = version
        table.flows[place].ground = decision.verdict.ground
        table.flows[place].isLoose = decision.isLoose
      }
    } else {
      commitRest(decision, direction, ticks: ticks)
    }
    if decision.logs { enterLog(decision, packet, bytes, direction, now: now) }
  }

  /// Moves a flow to the segment that its phase belongs to.
  @inline(never)
  private mutating func commitPhase(_ decision: Decision) {
    table.flows[decision.place].phase = decision.phase
    switch decision.phase {
    case .established, .closing:
      if table.flows[decision.place].segment != .established { table.establish(decision.place) }
    case .closed, .reset: table.close(decision.place)
    case .opening, .answered: break
    }
  }

  @inline(never)
  private mutating func commitRest(_ decision: Decision, _ direction: TrafficDirection, ticks: UInt32) {
    switch decision.effect {
    case .none, .follow: break
    case .end: table.remove(decision.place)
    case .open:
      if decision.place >= 0 { table.remove(decision.place) }
      table.insert(
        Flow(
          decision.key, tag: decision.tag, peer: Int32(truncatingIfNeeded: policy?.peer(of: decision.key.remote) ?? -1),
          at: ticks, version: version, ground: decision.verdict.ground,
          kind: decision.kind, opener: direction, isLoose: decision.isLoose, connection: decision.connection))
    }
  }

  @inline(never)
  private mutating func enterLog(
    _ decision: Decision, _ packet: InnerPacket, _ bytes: PacketBytes, _ direction: TrafficDirection,
    now: MonotonicTime
  ) {
    let at = packet.transportOffset
    let hasPorts = (packet.transport == IPProtocol.tcp || packet.transport == IPProtocol.udp) && bytes.count >= at + 4
    let opening = FlowOpening(
      direction: direction, transport: packet.transport, source: packet.source(bytes),
      destination: packet.destination(bytes), sourcePort: hasPorts ? bytes.load16(at) : 0,
      destinationPort: hasPorts ? bytes.load16(at + 2) : 0)
    let row = policy?.peer(of: opening.remote).map { Int32(truncatingIfNeeded: $0) } ?? -1
    log.add(opening, decision.verdict.ground, isAllowed: decision.verdict.passes, of: Holder(row: row), now: now)
  }
}
