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

/// Whose something is, before it has a name: that is made for few, because packets wait meanwhile.
private enum ShareOwner: Hashable {
  case side(Int)
  /// By its place.
  case gateway(Int)
  case origin(IPAddress)
}

extension RelayShares.Share {
  /// - Parameters:
  ///   - holders: what each has.
  ///   - name: of those that are named.
  fileprivate init(
    _ resource: SharedResource, capacity: Int, refused: UInt64, _ holders: [ShareOwner: Int],
    _ name: (ShareOwner) -> String
  ) {
    self.init(
      resource: resource, capacity: capacity, used: holders.values.reduce(0, +), refused: refused,
      holders: holders.filter { $0.value > 0 }.sorted { $0.value > $1.value }.prefix(16)
        .map { RelayShares.Part(holder: name($0.key), held: $0.value, refused: 0) })
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
    var streamsOf: [ShareOwner: Int] = [:]
    for place in 0..<streams.table.used where streams.table[place].state != .free {
      streamsOf[ownerOfStream(place), default: 0] += 1
    }
    let refused = streams.table.shares().refused
    var shares = [
      RelayShares.Share(.streams, capacity: streams.table.capacity, refused: refused, streamsOf) { name($0) }
    ]
    for report in streams.carries.shares() { shares.append(RelayShares.Share(report) { holderOfCarry($0) }) }
    guard identities != nil else { return RelayShares(shares: shares) }
    var waiting: [ShareOwner: Int] = [:]
    for (place, row) in gateways.rows.enumerated() where !row.queue.isEmpty {
      waiting[ownerOfStream(place), default: 0] += row.queue.count
    }
    shares.append(
      RelayShares.Share(.sendQueues, capacity: GatewayStreams.mostInAll, refused: gateways.refused, waiting) {
        name($0)
      })
    for report in identities?.shares() ?? [] { shares.append(RelayShares.Share(report) { holderAtPlace($0) }) }
    return RelayShares(shares: shares)
  }

  private mutating func ownerOfStream(_ place: Int) -> ShareOwner {
    switch ports[place] {
    case .side(let side) where !streams.table[place].isUnauthenticated: return .side(side.place)
    case .gateway:
      return identities?.place(ofStream: place).map { .gateway($0) } ?? .origin(streams.table[place].origin)
    case .side, .control: return .origin(streams.table[place].origin)
    }
  }

  private mutating func name(_ owner: ShareOwner) -> String {
    switch owner {
    case .side(let place): tenant(SideIndex(place: place))
    case .gateway(let place): identities?.gateway(at: place) ?? "nobody"
    case .origin(let address): "\(address)"
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

  fileprivate func place(ofStream stream: Int) -> Int? { places.place(ofStream: Int32(truncatingIfNeeded: stream)) }

  fileprivate func gateway(ofStream stream: Int) -> String? { place(ofStream: stream).flatMap { gateway(at: $0) } }
}
