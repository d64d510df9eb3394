public import PacketIO

/// Asks the pipelines what they would do with a packet, on copies of what they change.
///
/// The steps are the pipelines' own functions; those that change a packet get a copy of it, those that count get a
/// peer of their own, and of those that claim or remember the half is used that only decides.
package struct Examination: ~Copyable {
  /// For counts that shall not be seen.
  private let scratch: StateCell<Peer>

  package init(now: MonotonicTime) { scratch = StateCell(Peer(paths: [], now: now)) }

  /// - Parameters:
  ///   - packet: an inner packet as this side's hosts see it, whole; translation of what comes in is undone first.
  package func explain(
    _ packet: [UInt8], _ outbound: inout OutboundPipeline, _ inbound: inout InboundPipeline, _ turn: Turn
  ) -> Explanation {
    let (tables, pool) = (turn.tables, turn.pool)
    var explanation = Explanation(direction: .outbound)
    guard packet.count <= 0xFFFF, let buffer = pool.take() else {
      explanation.refuse(packet.count <= 0xFFFF ? .noBuffer : .malformedPacket, at: .packet, "cannot be looked at")
      return explanation
    }
    defer { pool.release(buffer) }
    let superpacket = Superpacket(
      buffer: buffer, offset: BufferPool.headroom, length: packet.count, segmentSize: packet.count)
    let bytes = superpacket.bytes(in: pool)
    bytes.copy(packet, to: 0)
    guard let parsed = InnerPacket(bytes) else {
      explanation.refuse(.malformedPacket, at: .packet, "no whole IPv4 or IPv6 packet")
      return explanation
    }
    let (source, destination) = (parsed.source(bytes), parsed.destination(bytes))
    explanation.source = "\(source)"
    explanation.destination = "\(destination)"
    explanation.transport = parsed.transport
    let isInbound = tables.routes.lookup(destination) == nil && tables.routes.lookup(source) != nil
    if isInbound { explanation.direction = .inbound }
    explanation.add(
      .packet,
      "\(explanation.direction.name), \(parsed.length) bytes from \(source) to \(destination), protocol "
        + "\(parsed.transport)\(parsed.isFragment ? ", a fragment" : "")")
    let whole = bytes.slice(0, parsed.length)
    if isInbound {
      explainInbound(whole, parsed, &inbound, turn, &explanation)
    } else {
      explainOutbound(superpacket, whole, parsed, &outbound, turn, &explanation)
    }
    return explanation
  }

  // MARK: Outbound

  private func explainOutbound(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, _ pipeline: inout OutboundPipeline,
    _ turn: Turn, _ explanation: inout Explanation
  ) {
    let (tables, now) = (turn.tables, turn.now)
    let destination = packet.destination(bytes)
    describeRoute(to: destination, tables, &explanation)
    switch pipeline.route(packet, bytes, tables) {
    case .unkeyed:
      explanation.refuse(.noAssociation, at: .association, "there is no key for \(explanation.peer ?? "the peer")")
    case .dropped(let reason):
      let step: Explanation.Step.Name = reason == .noRoute ? .route : .path
      explanation.refuse(reason, at: step, "nothing can be sent to \(explanation.peer ?? "\(destination)")")
    case .elsewhere(let row):
      explanation.add(.association, "worker 0 seals it")
      guard isAdmitted(packet.source(bytes), to: row, tables, &explanation), let firewall = pipeline.firewall else {
        return
      }
      let verdict = firewall.value.explain(packet, bytes, length: packet.length, direction: .outbound, now: now)
      _ = judged(verdict, tables, &explanation)
    case .found(let found):
      let (peer, association) = (found.peer, found.association)
      explanation.spi = association.value.spi
      explanation.add(.association, Examination.describe(association.value.configuration))
      describePath(found.path, peer.state.value.mtu, limit: found.limit, &explanation)
      guard isAdmitted(packet.source(bytes), to: found.row, tables, &explanation) else { return }
      if let firewall = pipeline.firewall {
        let verdict = firewall.value.explain(
          packet, bytes, length: packet.length, direction: .outbound, now: now)
        guard judged(verdict, tables, &explanation) else { return }
      }
      fit(superpacket, bytes, packet, &pipeline, found, turn.pool, &explanation)
    }
  }

  /// False: the packet goes no further.
  private func isAdmitted(
    _ source: IPAddress, to row: Int, _ tables: Snapshot, _ explanation: inout Explanation
  ) -> Bool {
    guard !tables.maySend(from: source, to: row) else { return true }
    explanation.refuse(.foreignSource, at: .packet, "\(source) is not this side's")
    return false
  }

  private func fit(
    _ superpacket: Superpacket, _ bytes: PacketBytes, _ packet: InnerPacket, _ pipeline: inout OutboundPipeline,
    _ found: OutboundPipeline.Destination, _ pool: BufferPool, _ explanation: inout Explanation
  ) {
    let (peer, limit) = (found.peer, found.limit)
    var mtu = found.trial
    if !packet.isV4 { mtu = max(mtu, InnerPacket.leastMTUv6) }
    switch PathFit.fit(superpacket, bytes, packet, limit: limit, trial: found.trial) {
    case .refused(let reason, let isTold):
      if isTold { explanation.toldMTU = mtu }
      explanation.refuse(reason, at: .fit, isTold ? "its sender is told an MTU of \(mtu)" : "it contradicts itself")
    case .tooLargeV6:
      let scratch = FragmentedCopy(bytes, packet, pool: pool)
      guard let scratch else { return explanation.refuse(.noBuffer, at: .fit, "no room for fragments") }
      defer { pool.release(scratch.superpacket.buffer) }
      explanation.add(.fit, "gets a fragment header, because nobody has to send IPv6 packets below 1280 bytes")
      fit(
        scratch.superpacket, scratch.superpacket.bytes(in: pool), scratch.packet, &pipeline, found, pool, &explanation)
    case .cut(var segments, let isTold):
      if isTold { explanation.toldMTU = mtu }
      explanation.add(.fit, Examination.describe(segments, told: isTold ? mtu : nil))
      var bytes = bytes
      if let translation = peer.translation {
        pipeline.translate(
          superpacket, packet, &segments, &bytes, translation, scratch.reference, limit: limit, pool: pool)
        describeTranslation(bytes, packet, &explanation)
      }
      if segments.kind == .whole { describeAggregation(of: bytes.count, peer, limit: limit, &explanation) }
      switch found.association.value.mayClaim(segments.count) {
      case .refused(let reason):
        explanation.refuse(reason, at: .sequence, "no number under SPI \(Examination.hex(found.association.value.spi))")
      case .granted(let first):
        explanation.packets = segments.count
        explanation.add(.sequence, "the next number is \(first)")
      }
    }
  }

  /// A packet with its fragment header, as `divide` makes it, in a buffer of its own.
  private struct FragmentedCopy {
    let superpacket: Superpacket
    let packet: InnerPacket

    init?(_ bytes: PacketBytes, _ packet: InnerPacket, pool: BufferPool) {
      guard let copy = PathFit.addFragmentHeader(bytes, packet, identification: 0, pool: pool) else { return nil }
      guard let parsed = InnerPacket(copy.bytes(in: pool)) else {
        pool.release(copy.buffer)
        return nil
      }
      superpacket = copy
      self.packet = parsed
    }
  }

  // MARK: Inbound

  private func explainInbound(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ pipeline: inout InboundPipeline, _ turn: Turn,
    _ explanation: inout Explanation
  ) {
    let (tables, now) = (turn.tables, turn.now)
    let source = packet.source(bytes)
    describeRoute(to: source, tables, &explanation)
    guard let index = tables.routes.lookup(source).map(Int.init) else {
      return explanation.refuse(.spoofedSource, at: .route, "\(source) is nobody's")
    }
    let peer = tables.peers[index]
    guard let inbound = tables.configuration.peers[index].inbound.last else {
      return explanation.refuse(.unknownSPI, at: .association, "nothing is accepted from this peer")
    }
    explanation.spi = inbound.spi
    explanation.add(
      .association, Examination.describe(inbound) + ", if the packet is authentic and was not seen before")
    if let path = peer.state.value.path {
      let limit = peer.outbound.map { peer.state.value.largestInner(implicitIV: $0.value.implicitIV) }
      describePath(path, peer.state.value.mtu, limit: limit, &explanation)
    }
    if let translation = peer.translation {
      translation.value.outbound.undoOpposite(bytes, packet)
      describeTranslation(bytes, packet, &explanation)
    }
    let nextHeader = packet.isV4 ? ESPPacket.ipv4 : ESPPacket.ipv6
    switch pipeline.admit(bytes, nextHeader, Int32(truncatingIfNeeded: index), 0, tables) {
    case .dropped(let reason): return explanation.refuse(reason, at: .packet, "does not get in")
    case .control: return explanation.refuse(.dummyPacket, at: .packet, "no packet of a host")
    case .admitted(let admitted):
      var packet = admitted
      if let translation = peer.translation {
        if packet.transport == IPProtocol.udp {
          packet = pipeline.rewriteNames(bytes, packet, translation, scratch.reference)
        }
        translation.value.inbound.translate(bytes, packet)
      }
      if let firewall = pipeline.firewall {
        let verdict = firewall.value.explain(packet, bytes, length: packet.length, direction: .inbound, now: now)
        guard judged(verdict, tables, &explanation) else { return }
      }
      explanation.packets = 1
    }
  }

  // MARK: Words

  private func describeRoute(to address: IPAddress, _ tables: Snapshot, _ explanation: inout Explanation) {
    guard let index = tables.routes.lookup(address).map(Int.init) else { return }
    let name = tables.configuration.peers[index].name
    let prefix = tables.record(index)?.plan.routes.filter { $0.contains(address) }.max { $0.length < $1.length }
    explanation.peer = name
    explanation.prefix = prefix.map { "\($0)" }
    explanation.add(.route, "\(address) is behind \(name)\(prefix.map { ", by \($0)" } ?? "")")
  }

  private func describePath(_ path: Path, _ mtu: PathMTU?, limit: Int?, _ explanation: inout Explanation) {
    explanation.path = "\(path.endpoint)"
    explanation.pathMTU = mtu?.current
    explanation.largestInner = limit
    explanation.add(
      .path,
      "\(path.endpoint)\(mtu.map { ", path MTU \($0.current) (\($0.source.text))" } ?? "")\(limit.map { ", \($0) bytes inside" } ?? "")"
    )
  }

  private func describeTranslation(_ bytes: PacketBytes, _ packet: InnerPacket, _ explanation: inout Explanation) {
    let (source, destination) = (packet.source(bytes), packet.destination(bytes))
    guard "\(source)" != explanation.source || "\(destination)" != explanation.destination else { return }
    explanation.translation = Explanation.Translation(source: "\(source)", destination: "\(destination)")
    explanation.add(.translation, "from \(source) to \(destination) on the tunnel")
  }

  /// Says something of packets only that are small enough, to peers for which aggregation is switched on.
  private func describeAggregation(
    of length: Int, _ peer: Snapshot.PeerEntry, limit: Int, _ explanation: inout Explanation
  ) {
    guard peer.aggregates, OpenAggregate.takes(length, limit: limit) else { return }
    let name = explanation.peer ?? "the peer"
    explanation.add(
      .aggregation,
      peer.state.value.takesAggregates
        ? "shares an ESP packet with other small packets to \(name) that are read together with it"
        : "goes alone, because \(name) has not said that it takes several packets in one")
  }

  /// False: it goes no further.
  private func judged(_ verdict: Verdict, _ tables: Snapshot, _ explanation: inout Explanation) -> Bool {
    let rule = verdict.ground.rule.map { tables.firewall.enabledRules[$0] }
    explanation.judgement = Explanation.Judgement(
      ground: verdict.ground.name, rule: rule?.number, ruleName: rule?.name, isKnownFlow: verdict.isKnown)
    var ground = verdict.ground.name
    if let rule { ground = "rule \(rule.number)\(rule.name.isEmpty ? "" : " (\(rule.name))")" }
    let finding = "\(verdict.isKnown ? "a known flow, " : "")\(ground)"
    guard let refusal = verdict.refusal else {
      explanation.add(.firewall, "passes by \(finding)")
      return true
    }
    explanation.refuse(refusal, at: .firewall, "refused by \(finding)")
    return false
  }

  private static func describe(_ association: SecurityAssociationConfiguration) -> String {
    let numbers = association.extendedSequenceNumbers ? ", extended sequence numbers" : ""
    return
      "SPI \(hex(association.spi)), \(association.cipher.rawValue)\(numbers)\(association.implicitIV ? ", implicit IV" : "")"
  }

  private static func describe(_ segments: Segmentation, told mtu: Int?) -> String {
    let pieces: String =
      switch segments.kind {
      case .whole: "goes whole"
      case .tcp, .udp: "goes in \(segments.count) segments"
      case .fragments: "goes in \(segments.count) fragments"
      }
    return pieces + (mtu.map { ", and its sender is told an MTU of \($0)" } ?? "")
  }

  private static func hex(_ spi: UInt32) -> String { "0x" + String(spi, radix: 16) }
}

extension Explanation {
  /// What a gateway of this configuration would do with a packet, before it has heard anything from anybody, and where
  /// paths take what the configuration causes.
  ///
  /// - Parameters:
  ///   - packet: an inner packet, whole.
  ///   - pathOverhead: bytes that the path to a peer adds to a sealed packet; nil: packets of any size fit.
  /// - Throws: `ConfigurationError`.
  public init(
    of packet: [UInt8], under configuration: Configuration, pathOverhead: (Path) -> Int?
  ) throws {
    try configuration.validate(transports: 16, engine: CipherEngine.available[0])
    let now = MonotonicTime(nanoseconds: 1_000_000_000)
    let tables = Snapshot(configuration, sealing: .leftOut, now: now)
    for index in 0..<tables.peers.count {
      let peer = tables.peers[index]
      guard let path = peer.state.value.path else { continue }
      let largest = ESPPacket.sealedLength(
        configuration.interface.mtu, implicitIV: peer.outbound?.value.implicitIV ?? false)
      let overhead = pathOverhead(path)
      peer.state.value.withSelection {
        $0.candidates.settle(
          everything: true, largestSealed: largest,
          largestOuter: configuration.peers[index].mtu ?? PathMTU.largest, raiseInterval: PathMTU.raiseInterval
        ) { _ in overhead }
        $0.candidates.assumeSizes()
      }
    }
    let pool = BufferPool(count: 8)
    guard let scratch = pool.take() else {
      self.init(direction: .outbound)
      return
    }
    var random = SystemRandomNumberGenerator()
    let firewall = StateCell(Firewall(using: &random))
    firewall.reference.value.adopt(tables.firewall)
    var outbound = OutboundPipeline(scratch: pool.bytes(scratch), batchCapacity: 1)
    var inbound = InboundPipeline(capacity: InboundPipeline.trainSegments, offloads: [])
    outbound.firewall = tables.firewall.isActive ? firewall.reference : nil
    inbound.firewall = outbound.firewall
    self = Examination(now: now).explain(
      packet, &outbound, &inbound, Turn(tables: tables, pool: pool, now: now))
    withExtendedLifetime(firewall) {}
  }
}
