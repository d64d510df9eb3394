import PacketIO

/// What a worker does about the paths to its peers: the part of its turn that is no packet's way.
extension WorkerLoop {
  // MARK: Time

  func isActive(_ peer: Int) -> Bool {
    io.now.nanoseconds(since: tables.peers[peer].state.value.lastSent) < WorkerLoop.activityInterval
  }

  /// An idle peer has something to be done: a probe to be sent or judged.
  func isDue(_ peer: Int) -> Bool {
    let state = tables.peers[peer].state
    if let mtu = state.value.mtu, mtu.isDue(now: io.now) { return true }
    guard state.value.selection != nil else { return false }
    return io.now >= state.value.selectionDue
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
      var message =
        state.value.withSelection { selection in
          // One that is as small as can be tells of the path as well.
          if probe.size == 0 { selection.sent(probe.number, now: now) }
          return selection.message(probe.number)
        } ?? ProbeMessage(number: probe.number, tieBreaker: tieBreaker, rank: rank(peer), isUsed: true)
      message.takesAggregates = tables.peers[peer].aggregates
      _ = send(ControlMessage.Kind.probe, message.body, to: peer, size: max(probe.size - overhead, 0))
    }
  }

  /// The place of a peer's only path in its list.
  private func rank(_ peer: Int) -> UInt8 {
    let path = tables.peers[peer].state.value.path
    let place = tables.configuration.peers[peer].paths.firstIndex { $0.path == path }
    return place.map { UInt8($0) } ?? ProbeMessage.unlisted
  }

  /// Sends a peer's probes that are due, lets traffic take the path that the selection has chosen, and tells of it.
  mutating func servicePaths(_ peer: Int) {
    let state = tables.peers[peer].state
    guard state.value.selection != nil else { return }
    let now = io.now
    // What is learned now may make another probe due, once.
    for _ in 0..<2 {
      settlePaths(peer, everything: false)
      let traffic = PathSelection.Traffic(isActive: isActive(peer), lastHeard: state.value.lastHeardHere)
      var number = nextProbe
      let probes =
        state.value.withSelection {
          $0.poll(traffic, now: now) {
            number &+= 1
            return number
          }
        } ?? []
      nextProbe = number
      for probe in probes {
        var message = probe.message
        message.takesAggregates = tables.peers[peer].aggregates
        let isSent = send(
          ControlMessage.Kind.probe, message.body, to: peer, along: probe.path, size: probe.size)
        if !isSent { _ = state.value.withSelection { $0.withdraw(probe.message.number) } }
      }
      tellTransports(peer)
      guard followSelection(peer) else { break }
    }
  }

  /// True when traffic takes another path.
  private mutating func followSelection(_ peer: Int) -> Bool {
    let state = tables.peers[peer].state
    let hasMoved = state.value.followSelection()
    guard var change = state.value.withSelection({ $0.takeChange() }) ?? nil else { return hasMoved }
    let configuration = tables.configuration.peers[peer]
    change.name = configuration.paths.first { $0.path == change.path }?.name ?? PathChange.learned
    events.send(.pathSelected(peer: configuration.name, change))
    addresses.put(.heard(peer: configuration.name))
    sharePath(peer)
    return hasMoved
  }

  /// By which paths the peer was heard, and which are not needed any more.
  private mutating func tellTransports(_ peer: Int) {
    let state = tables.peers[peer].state
    let confirmed = state.value.withSelection { $0.takeUnconfirmed() } ?? []
    for path in confirmed { links[Int(path.transport)].confirm(path, io: &io) }
    let released = state.value.withSelection { $0.takeReleased() } ?? []
    for path in released { links[Int(path.transport)].release(path, io: &io) }
  }

  // MARK: What comes in

  /// A peer was heard elsewhere than it was thought to be.
  mutating func followMove(_ peer: Int) {
    guard number == 0 else { return reportMove(peer) }
    defer { sharePath(peer) }
    let state = tables.peers[peer].state
    let now = io.now
    if let path = state.value.heardBy {
      state.value.heardBy = nil
      // The selection may have come to the same path since.
      guard path != state.value.path else { return }
      _ = state.value.withSelection { $0.receiveTraffic(by: path, now: now) }
      servicePaths(peer)
    } else if state.value.selection == nil, let path = state.value.path {
      links[Int(path.transport)].confirm(path, io: &io)
      if hasOpenedOwnStream(to: peer, beside: path) { makeSelection(peer) }
      settlePaths(peer, everything: true)
      let name = tables.configuration.peers[peer].name
      events.send(.pathChanged(peer: name, path: path))
      addresses.put(.heard(peer: name))
    }
  }

  /// The peer was heard on a stream that it opened, where this side opens one too.
  private func hasOpenedOwnStream(to peer: Int, beside path: Path) -> Bool {
    links[Int(path.transport)].overhead(path) == nil
      && tables.configuration.peers[peer].paths.contains {
        $0.originates && $0.path != path && $0.path.transport == path.transport
          && $0.path.endpoint.address == path.endpoint.address
      }
  }

  mutating func takeProbe(_ probe: ProbeMessage, from peer: Int, path: Path, isNewest: Bool) {
    let reply = ProbeReply(
      number: probe.number, seen: path.endpoint, takesAggregates: tables.peers[peer].aggregates)
    _ = send(ControlMessage.Kind.probeReply, reply.body, to: peer, along: path)
    let state = tables.peers[peer].state
    let now = io.now
    if isNewest { state.value.takesAggregates = probe.takesAggregates }
    if state.value.selection == nil {
      guard state.value.path != path else { return }
      guard !probe.isUsed || hasOpenedOwnStream(to: peer, beside: path) else {
        guard isNewest else { return }
        state.value.path = path
        return followMove(peer)
      }
      // The peer has more than one path, or two streams are one too many: so from now on there is a choice.
      makeSelection(peer)
    }
    _ = state.value.withSelection { $0.receive(probe, by: path, isNewest: isNewest, now: now) }
    servicePaths(peer)
  }

  mutating func takeReply(_ reply: ProbeReply, from peer: Int, isNewest: Bool) {
    let state = tables.peers[peer].state
    let now = io.now
    if isNewest { state.value.takesAggregates = reply.takesAggregates }
    _ = state.value.withMTU { $0.acknowledge(reply.number, now: now) }
    guard state.value.selection != nil else { return }
    _ = state.value.withSelection { $0.receive(reply, now: now) }
    servicePaths(peer)
  }

  /// Says something authentic along a path that has just opened, so that the peer learns whose it is, also where only
  /// it has something to send.
  mutating func introduce(at path: Path) {
    let now = io.now
    for peer in 0..<tables.peers.count {
      let state = tables.peers[peer].state
      if state.value.selection != nil {
        _ = state.value.withSelection { $0.open(path, now: now) }
        if state.value.selectionDue <= now { servicePaths(peer) }
      } else if state.value.path == path {
        announce(to: peer)
      }
    }
    sendTrains()
  }

  /// Sends a probe that says what this side takes, and whose answer says what the peer does.
  private mutating func announce(to peer: Int) {
    nextProbe &+= 1
    let probe = ProbeMessage(
      number: nextProbe, tieBreaker: tieBreaker, rank: rank(peer), isUsed: true,
      takesAggregates: tables.peers[peer].aggregates)
    _ = send(ControlMessage.Kind.probe, probe.body, to: peer)
  }

  /// After a change of the configuration. Paths that are measured are asked anyway.
  mutating func settle(_ peers: [Int]) {
    for peer in peers {
      settlePaths(peer, everything: true)
      let state = tables.peers[peer].state
      if state.value.selection == nil, state.value.mtu == nil, state.value.path != nil,
        tables.peers[peer].aggregates || state.value.takesAggregates
      {
        announce(to: peer)
        sendTrains()
      }
    }
  }

  /// A transport reports an error. Rare, and so are peers on one path.
  mutating func failPath(_ path: Path) {
    let now = io.now
    for peer in 0..<tables.peers.count where tables.peers[peer].state.value.selection != nil {
      _ = tables.peers[peer].state.value.withSelection { $0.fail(path, now: now) }
    }
  }

  // MARK: Sending and measuring

  mutating func send(
    _ type: UInt8, _ body: [UInt8], to peer: Int, along path: Path? = nil, size: Int = 0, underOwn: Bool = false
  ) -> Bool {
    outbound.sendControl(
      type: type, body: body, to: peer, along: path, size: size, underOwn: underOwn, tables: tables, pool: io.pool,
      trains: &trains)
  }

  private func makeSelection(_ peer: Int) {
    let paths = tables.configuration.peers[peer].paths
    tables.peers[peer].state.value.makeSelection(paths, tieBreaker: tieBreaker, now: io.now)
  }

  /// Asks the transports what a peer's paths take, and makes a selection where several are listed.
  func settlePaths(_ peer: Int, everything: Bool) {
    let entry = tables.peers[peer]
    let paths = tables.configuration.peers[peer].paths
    if entry.state.value.selection == nil, paths.count > 1 { makeSelection(peer) }
    let implicitIV = entry.outbound?.value.implicitIV ?? false
    entry.state.value.settle(
      everything: everything,
      largestSealed: ESPPacket.sealedLength(tables.configuration.interface.mtu, implicitIV: implicitIV),
      raiseInterval: pathMTURaiseInterval
    ) { links[Int($0.transport)].overhead($0) }
  }
}
