package import PacketIO

/// Whose an address is, by the longest prefix over it.
package enum AddressOwner: BitwiseCopyable, Sendable, Equatable {
  /// The peer's of this row.
  case peer(UInt32)
  /// This side's.
  case own
  /// Nobody has a prefix over it, or nobody can have it without naming it.
  case nobody
}

/// Longest-prefix match from addresses to small numbers (rows of peers). Made once, then only read, by any thread.
package final class RouteTable: @unchecked Sendable {
  /// Of prefixes that are this side's own.
  static let own: UInt32 = 1 << 31 - 3
  /// Of prefixes that are nobody's, unless somebody has a longer one, or the same.
  static let nobody: UInt32 = 1 << 31 - 2

  private let v4: StateCell<PrefixMap<UInt32>>
  private let v6: StateCell<PrefixMap<UInt128>>

  /// - Parameter routes: in any order; of equal prefixes the last counts. Numbers are rows, below 2³¹ − 3, or `own` or `nobody`.
  package convenience init(_ routes: [(Prefix, UInt32)]) {
    let order = routes.indices.sorted {
      (routes[$0].0.address, routes[$0].0.length, $0) < (routes[$1].0.address, routes[$1].0.length, $1)
    }
    self.init(sorted: order.map { routes[$0] })
  }

  /// - Parameter routes: by address, and the shorter before the longer.
  init(sorted routes: [(Prefix, UInt32)]) {
    v4 = StateCell(PrefixMap(sorted: routes.lazy.filter(\.0.address.isV4).map { .init($0) }))
    v6 = StateCell(PrefixMap(sorted: routes.lazy.filter { !$0.0.address.isV4 }.map { .init($0) }))
  }

  private init(_ v4: StateCell<PrefixMap<UInt32>>, _ v6: StateCell<PrefixMap<UInt128>>) {
    self.v4 = v4
    self.v6 = v6
  }

  /// What lies under a prefix: the number of the longest prefix over it, and the prefixes inside, itself among them, in
  /// order.
  typealias Contents = (outside: UInt32?, inside: [(Prefix, UInt32)])

  /// The table as it is when some prefixes were added, taken out, or lead elsewhere; nil: it is to be compiled anew.
  func changed(_ prefixes: [Prefix], _ contents: (Prefix) -> Contents) -> RouteTable? {
    var (v4, v6) = (self.v4, self.v6)
    let blocks4 = prefixes.filter(\.address.isV4).map {
      PrefixMap<UInt32>.Block(start: $0.address.v4, length: $0.length)
    }
    if !blocks4.isEmpty {
      let map = self.v4.reference.value.changed(blocks4) { block in
        let found = contents(Prefix(IPAddress(v4: block.start), length: block.length))
        return PrefixMap<UInt32>.Contents(outside: found.outside, routes: found.inside.map { .init($0) })
      }
      guard let map else { return nil }
      v4 = StateCell(map)
    }
    let blocks6 = prefixes.filter { !$0.address.isV4 }
      .map { PrefixMap<UInt128>.Block(start: $0.address.v6, length: $0.length) }
    if !blocks6.isEmpty {
      let map = self.v6.reference.value.changed(blocks6) { block in
        let found = contents(Prefix(IPAddress(v6: block.start), length: block.length))
        return PrefixMap<UInt128>.Contents(outside: found.outside, routes: found.inside.map { .init($0) })
      }
      guard let map else { return nil }
      v6 = StateCell(map)
    }
    return RouteTable(v4, v6)
  }

  /// Where a table is, for whoever looks up much and keeps the table by other means.
  struct Reference: BitwiseCopyable {
    fileprivate let v4: StateReference<PrefixMap<UInt32>>
    fileprivate let v6: StateReference<PrefixMap<UInt128>>

    /// As `RouteTable.lookup`.
    @inline(__always) func lookup(_ address: IPAddress) -> UInt32? {
      let number = find(address)
      return number < RouteTable.own ? number : nil
    }

    /// As `RouteTable.owner`.
    @inline(__always) func owner(_ address: IPAddress) -> AddressOwner {
      let number = find(address)
      return number < RouteTable.own ? .peer(number) : number == RouteTable.own ? .own : .nobody
    }

    @inline(__always) private func find(_ address: IPAddress) -> UInt32 {
      address.isV4 ? v4.value.find(address.v4) : v6.value.find(address.v6)
    }
  }

  var reference: Reference { Reference(v4: v4.reference, v6: v6.reference) }

  /// The row of the peer that has the longest prefix over `address`; nil: no peer has.
  @inline(__always) package func lookup(_ address: IPAddress) -> UInt32? { reference.lookup(address) }

  /// Who has the longest prefix over `address`.
  @inline(__always) package func owner(_ address: IPAddress) -> AddressOwner { reference.owner(address) }

  /// Bytes that the compiled tables take.
  package var memory: Int { v4.reference.value.memory + v6.reference.value.memory }
}

extension PrefixMap<UInt32>.Route {
  init(_ route: (Prefix, UInt32)) {
    self.init(start: route.0.address.v4, length: route.0.length, value: route.1)
  }
}

extension PrefixMap<UInt128>.Route {
  init(_ route: (Prefix, UInt32)) {
    self.init(start: route.0.address.v6, length: route.0.length, value: route.1)
  }
}

extension IPAddress {
  var v6: UInt128 { UInt128(high) << 64 | UInt128(low) }

  init(v6 number: UInt128) {
    self.init(v6High: UInt64(truncatingIfNeeded: number >> 64), low: UInt64(truncatingIfNeeded: number))
  }
}
