import PacketIO

/// What a worker does about the roads to its peers: the part of its turn that is no packet's way.
extension WorkerLoop {
  // MARK: Time

  func isActive(_ peer: Int) -> Bool {
    io.now.nanoseconds(since: tables.peers[peer].state.value.lastSent) < WorkerLoop.activityInterval
  }

  /// An idle peer has something to be done: a probe to be sent or judged.
  func isDue(_ peer: Int) -> Bool {
    let state = tables.peers[peer].state
    if let mtu = state.value.mtu, mtu.isDue(now: io.now) { return true }
    guard state.value.ladder != nil else { return false }
    return io.now >= state.value.ladderDue
  }

  /// Looks whether the path that traffic takes has room for the packets that go there.
  mutating func probe(_ peer: Int) {
    let state = tables.peers[peer].state
    let isActive = isActive(peer)
    let now = io.now
    var number = nextProbe
    let probes = state.value.withMTU {
      $0.poll(now: now, isActive: isActive) {
        number &+= 1
        return number
      }
    }
    nextProbe = number
    guard let probes else { return }
    let overhead = state.value.overhead
    for probe in [probes.0, probes.1] {
      guard let probe else { continue }
      let message =
        state.value.withLadder { ladder in
          // One that is as small as can be tells of the road as well.
          if probe.size == 0 { ladder.sent(probe.number, now: now) }
          return ladder.message(probe.number)
        } ?? ProbeMessage(number: probe.number, tieBreaker: tieBreaker, rank: rank(peer), isUsed: true)
      _ = send(ControlMessage.Kind.probe, message.body, to: peer, size: max(probe.size - overhead, 0))
    }
  }

  /// The place of a peer's only path in its list.
  private func rank(_ peer: Int) -> UInt8 {
    let path = tables.peers[peer].state.value.path
    let place = tables.configuration.peers[peer].roads.firstIndex { $0.path == path }
    return place.map { UInt8($0) } ?? ProbeMessage.unlisted
  }

  /// Sends a peer's probes that are due, lets traffic take the road that the ladder has chosen, and tells of it.
  mutating func serviceRoads(_ peer: Int) {
    let state = tables.peers[peer].state
    guard state.value.ladder != nil else { return }
    let now = io.now
    // What is learned now may make another probe due, once.
    for _ in 0..<2 {
      settleRoads(peer, everything: false)
      let traffic = Ladder.Traffic(isActive: isActive(peer), lastHeard: state.value.lastHeardHere)
      var number = nextProbe
      let probes =
        state.value.withLadder {
          $0.poll(traffic, now: now) {
            number &+= 1
            return number
          }
        } ?? []
      nextProbe = number
      for probe in probes {
        let isSent = send(
          ControlMessage.Kind.probe, probe.message.body, to: peer, along: probe.path, size: probe.size)
        if !isSent { _ = state.value.withLadder { $0.withdraw(probe.message.number) } }
      }
      tellTransports(peer)
      guard followLadder(peer) else { break }
    }
  }

  /// True when traffic takes another path.
  private mutating func followLadder(_ peer: Int) -> Bool {
    let state = tables.peers[peer].state
    let hasMoved = state.value.followLadder()
    guard var change = state.value.withLadder({ $0.takeChange() }) ?? nil else { return hasMoved }
    let configuration = tables.configuration.peers[peer]
    change.road = configuration.roads.first { $0.path == change.path }?.name ?? RoadChange.learned
    events.send(.roadChanged(peer: configuration.name, change))
    addresses.put(.heard(peer: configuration.name))
    return hasMoved
  }

  /// By which paths the peer was heard, and which are not needed any more.
  private mutating func tellTransports(_ peer: Int) {
    let state = tables.peers[peer].state
    let confirmed = state.value.withLadder { $0.takeUnconfirmed() } ?? []
    for path in confirmed { links[Int(path.transport)].confirm(path, io: &io) }
    let released = state.value.withLadder { $0.takeReleased() } ?? []
    for path in released { links[Int(path.transport)].release(path, io: &io) }
  }

  // MARK: What comes in

  /// A peer was heard elsewhere than it was thought to be.
  mutating func followMove(_ peer: Int) {
    let state = tables.peers[peer].state
    let now = io.now
    if let path = state.value.heardBy {
      state.value.heardBy = nil
      // The ladder may have come to the same road since.
      guard path != state.value.path else { return }
      _ = state.value.withLadder { $0.receiveTraffic(by: path, now: now) }
      serviceRoads(peer)
    } else if state.value.ladder == nil, let path = state.value.path {
      links[Int(path.transport)].confirm(path, io: &io)
      if hasOpenedOwnStream(to: peer, beside: path) { makeLadder(peer) }
      settleRoads(peer, everything: true)
      let name = tables.configuration.peers[peer].name
      events.send(.pathChanged(peer: name, path: path))
      addresses.put(.heard(peer: name))
    }
  }

  /// The peer was heard on a stream that it opened, where this side opens one too.
  private func hasOpenedOwnStream(to peer: Int, beside path: Path) -> Bool {
    links[Int(path.transport)].overhead(path) == nil
      && tables.configuration.peers[peer].roads.contains {
        $0.originates && $0.path != path && $0.path.transport == path.transport
          && $0.path.endpoint.address == path.endpoint.address
      }
  }

  mutating func takeProbe(_ probe: ProbeMessage, from peer: Int, _ arrival: InboundPipeline.ControlArrival) {
    let reply = ProbeReply(number: probe.number, seen: arrival.path.endpoint)
    _ = send(ControlMessage.Kind.probeReply, reply.body, to: peer, along: arrival.path)
    let state = tables.peers[peer].state
    let now = io.now
    if state.value.ladder == nil {
      guard state.value.path != arrival.path else { return }
      guard !probe.isUsed || hasOpenedOwnStream(to: peer, beside: arrival.path) else {
        guard arrival.isNewest else { return }
        state.value.path = arrival.path
        return followMove(peer)
      }
      // The peer has more than one road, or two streams are one too many: so from now on there is a choice.
      makeLadder(peer)
    }
    _ = state.value.withLadder { $0.receive(probe, by: arrival.path, isNewest: arrival.isNewest, now: now) }
    serviceRoads(peer)
  }

  mutating func takeReply(_ reply: ProbeReply, from peer: Int) {
    let state = tables.peers[peer].state
    let now = io.now
    _ = state.value.withMTU { $0.acknowledge(reply.number, now: now) }
    guard state.value.ladder != nil else { return }
    _ = state.value.withLadder { $0.receive(reply, now: now) }
    serviceRoads(peer)
  }

  /// Says something authentic along a road that has just opened, so that the peer learns whose it is, also where only
  /// it has something to send.
  mutating func introduce(at path: Path) {
    let now = io.now
    for peer in 0..<tables.peers.count {
      let state = tables.peers[peer].state
      if state.value.ladder != nil {
        _ = state.value.withLadder { $0.open(path, now: now) }
        if state.value.ladderDue <= now { serviceRoads(peer) }
      } else if state.value.path == path {
        nextProbe &+= 1
        let probe = ProbeMessage(number: nextProbe, tieBreaker: tieBreaker, rank: rank(peer), isUsed: true)
        _ = send(ControlMessage.Kind.probe, probe.body, to: peer)
      }
    }
    sendTrains()
  }

  /// A transport reports an error. Rare, and so are peers on one path.
  mutating func failRoad(_ path: Path) {
    let now = io.now
    for peer in 0..<tables.peers.count where tables.peers[peer].state.value.ladder != nil {
      _ = tables.peers[peer].state.value.withLadder { $0.fail(path, now: now) }
    }
  }

  // MARK: Sending and measuring

  mutating func send(
    _ type: UInt8, _ body: [UInt8], to peer: Int, along path: Path? = nil, size: Int = 0
  ) -> Bool {
    outbound.sendControl(
      type: type, body: body, to: peer, along: path, size: size, tables: tables, pool: io.pool, trains: &trains)
  }

  private func makeLadder(_ peer: Int) {
    let roads = tables.configuration.peers[peer].roads
    tables.peers[peer].state.value.makeLadder(roads, tieBreaker: tieBreaker, now: io.now)
  }

  /// Asks the transports what a peer's roads take, and makes a ladder where several are listed.
  func settleRoads(_ peer: Int, everything: Bool) {
    let entry = tables.peers[peer]
    let roads = tables.configuration.peers[peer].roads
    if entry.state.value.ladder == nil, roads.count > 1 { makeLadder(peer) }
    let implicitIV = entry.outbound?.value.implicitIV ?? false
    entry.state.value.settle(
      everything: everything,
      largestSealed: ESPPacket.sealedLength(tables.configuration.interface.mtu, implicitIV: implicitIV),
      raiseInterval: pathMTURaiseInterval
    ) { links[Int($0.transport)].overhead($0) }
  }
}
