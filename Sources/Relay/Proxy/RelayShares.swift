public import PacketIO

/// Who holds how much of what tenants, gateways and strangers share at a relay, as of one moment.
public struct RelayShares: Sendable, Equatable, Codable {
  /// What one holds now, and how often it did not get, or had to give up, what it wanted.
  public struct Part: Sendable, Equatable, Codable {
    /// "ticket NUMBER of NAME", "gateway GID", or a stranger's address.
    public var holder: String
    public var held: Int
    public var refused: UInt64
  }

  /// One resource.
  public struct Share: Sendable, Equatable, Codable {
    public var resource: SharedResource
    /// What there is, and what is held by all, in the resource's unit; of `sendQueues`, bytes.
    public var capacity: Int
    public var used: Int
    /// Since the start, to all.
    public var refused: UInt64
    /// Those who hold most, 16 at most.
    public var holders: [Part]
  }

  public var shares: [Share]
}

extension RelayShares.Share {
  /// - Parameter holders: all of them, each as often as it has something.
  fileprivate init(_ resource: SharedResource, capacity: Int, refused: UInt64, _ holders: [(name: String, held: Int)]) {
    let held = Dictionary(holders.map { ($0.name, $0.held) }, uniquingKeysWith: +).filter { $0.value > 0 }
    self.init(
      resource: resource, capacity: capacity, used: held.values.reduce(0, +), refused: refused,
      holders: held.sorted { ($0.value, $1.key) > ($1.value, $0.key) }.prefix(16)
        .map { RelayShares.Part(holder: $0.key, held: $0.value, refused: 0) })
  }

  fileprivate init(_ report: ShareReport, _ name: (Holder) -> String) {
    self.init(
      resource: report.resource, capacity: report.capacity, used: report.used, refused: report.refused,
      holders: report.holders.map {
        RelayShares.Part(holder: name($0.holder), held: $0.held, refused: $0.refused)
      })
  }
}

extension HairpinServer {
  /// Who holds how much; its time grows with the number of streams.
  mutating func shares() -> RelayShares {
    var streamsOf: [(name: String, held: Int)] = []
    for place in 0..<streams.table.used where streams.table[place].state != .free {
      streamsOf.append((ownerOfStream(place), 1))
    }
    let refused = streams.table.shares().refused
    var shares = [RelayShares.Share(.streams, capacity: streams.table.capacity, refused: refused, streamsOf)]
    for report in streams.carries.shares() { shares.append(RelayShares.Share(report) { holderOfCarry($0) }) }
    guard identities != nil else { return RelayShares(shares: shares) }
    var waiting: [(name: String, held: Int)] = []
    for (place, row) in gateways.rows.enumerated() where !row.queue.isEmpty {
      waiting.append((ownerOfStream(place), row.queue.count))
    }
    shares.append(
      RelayShares.Share(
        .sendQueues, capacity: GatewayStreams.mostInAll, refused: identities?.statistics[.notTaken] ?? 0, waiting))
    for report in identities?.shares() ?? [] { shares.append(RelayShares.Share(report) { holderAtPlace($0) }) }
    return RelayShares(shares: shares)
  }

  private mutating func ownerOfStream(_ place: Int) -> String {
    switch ports[place] {
    case .side(let side) where !streams.table[place].isUnauthenticated: tenant(side)
    case .gateway: gateway(ofStream: place)
    case .side, .control: "\(streams.table[place].origin)"
    }
  }

  private mutating func tenant(_ side: SideIndex) -> String {
    guard let ticket = admission.hairpins[side.hairpin].life?.ticket else { return "nobody" }
    return "ticket \(ticket.number) of \((side.end == .first ? ticket.first : ticket.second).name)"
  }

  private mutating func gateway(ofStream stream: Int) -> String {
    identities?.gateway(ofStream: stream) ?? "\(streams.table[stream].origin)"
  }

  /// As they are counted: sides of hairpins, behind them gateways by their streams.
  private mutating func holderOfCarry(_ holder: Holder) -> String {
    let row = Int(holder.row)
    if row >= engine.sides.count, row - engine.sides.count < ports.count {
      return gateway(ofStream: row - engine.sides.count)
    }
    return row >= 0 ? tenant(SideIndex(place: row)) : holderAtPlace(holder)
  }

  private mutating func holderAtPlace(_ holder: Holder) -> String {
    switch holder {
    case .origin(let address): "\(address)"
    case .dialled(let endpoint): "\(endpoint)"
    case .peer: identities?.gateway(at: Int(holder.row)) ?? "nobody"
    }
  }
}

extension IdentityRelay {
  /// Nil: nobody has the place.
  fileprivate func gateway(at place: Int) -> String? {
    guard place >= 0, place < places.capacity, places.isTaken(place) else { return nil }
    return "gateway \(places[place].identity.tag)"
  }

  fileprivate func gateway(ofStream stream: Int) -> String? {
    places.place(ofStream: Int32(truncatingIfNeeded: stream)).flatMap { gateway(at: $0) }
  }
}
