public import PacketIO

extension Statistics {
  /// Who holds how much of one resource that peers and strangers share.
  public struct Share: Sendable, Equatable, Codable {
    /// What one holds now, and how often it did not get, or had to give up, what it wanted.
    public struct Part: Sendable, Equatable, Codable {
      /// A peer's name, a stranger's address, or where somebody was dialled.
      public var holder: String
      public var held: Int
      public var refused: UInt64
    }

    public var resource: SharedResource
    /// The transport's place in the embedder's list; nil: it is the dataplane's own.
    public var transport: Int?
    /// What there is, and what is held by all, in the resource's unit.
    public var capacity: Int
    public var used: Int
    /// Since the start, to all.
    public var refused: UInt64
    /// Those who hold most, 16 of each worker at most.
    public var holders: [Part]
  }
}

extension Statistics.Share {
  /// Of something that is not a worker's.
  /// - Parameter holders: all of them.
  package init(_ resource: SharedResource, capacity: Int, _ holders: [(holder: String, held: Int, refused: UInt64)]) {
    self.resource = resource
    transport = nil
    self.capacity = capacity
    used = holders.reduce(0) { $0 + $1.held }
    refused = holders.reduce(0) { $0 + $1.refused }
    let most = holders.sorted { ($0.held, $0.refused) > ($1.held, $1.refused) }.prefix(16)
    self.holders = most.filter { $0.held > 0 || $0.refused > 0 }
      .map { Part(holder: $0.holder, held: $0.held, refused: $0.refused) }
  }

  init(_ report: ShareReport, transport: Int?, name: (Holder) -> String) {
    resource = report.resource
    self.transport = transport
    capacity = report.capacity
    used = report.used
    refused = report.refused
    holders = report.holders.map { Part(holder: name($0.holder), held: $0.held, refused: $0.refused) }
  }

  /// Several workers' parts of one resource are one.
  static func add(_ share: Statistics.Share, to sum: inout [Statistics.Share]) {
    guard let index = sum.firstIndex(where: { $0.resource == share.resource && $0.transport == share.transport })
    else { return sum.append(share) }
    sum[index].capacity += share.capacity
    sum[index].used += share.used
    sum[index].refused += share.refused
    for part in share.holders {
      if let place = sum[index].holders.firstIndex(where: { $0.holder == part.holder }) {
        sum[index].holders[place].held += part.held
        sum[index].holders[place].refused += part.refused
      } else {
        sum[index].holders.append(part)
      }
    }
    sum[index].holders.sort { ($0.held, $0.refused) > ($1.held, $1.refused) }
  }
}
