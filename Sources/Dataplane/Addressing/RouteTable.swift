package import PacketIO

/// Longest-prefix match from addresses to small numbers (rows of peers). Made once, then only read, by any thread.
package final class RouteTable: @unchecked Sendable {
  private let v4: StateCell<PrefixMap<UInt32>>
  private let v6: StateCell<PrefixMap<UInt128>>

  /// - Parameter routes: in any order; of equal prefixes the last counts. Numbers are below 2³¹ − 1.
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
      address.isV4 ? v4.value.lookup(address.v4) : v6.value.lookup(address.v6)
    }
  }

  var reference: Reference { Reference(v4: v4.reference, v6: v6.reference) }

  /// The number of the longest prefix that covers `address`.
  @inline(__always) package func lookup(_ address: IPAddress) -> UInt32? { reference.lookup(address) }

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
