package import PacketIO

/// Longest-prefix match from addresses to small numbers (rows of peers). Compiled once, then only read, by any thread.
package final class RouteTable: @unchecked Sendable {
  fileprivate struct Maps: ~Copyable {
    let v4: PrefixMap<UInt32>
    let v6: PrefixMap<UInt128>
  }

  private let maps: StateCell<Maps>

  /// - Parameter routes: in any order; of equal prefixes the last counts. Numbers are below 2³¹ − 1.
  package convenience init(_ routes: [(Prefix, UInt32)]) {
    let order = routes.indices.sorted {
      (routes[$0].0.address, routes[$0].0.length, $0) < (routes[$1].0.address, routes[$1].0.length, $1)
    }
    self.init(sorted: order.map { routes[$0] })
  }

  /// - Parameter routes: by address, and the shorter before the longer.
  init(sorted routes: [(Prefix, UInt32)]) {
    maps = StateCell(
      Maps(
        v4: PrefixMap(
          sorted: routes.lazy.filter(\.0.address.isV4).map {
            .init(start: $0.address.v4, length: $0.length, value: $1)
          }),
        v6: PrefixMap(
          sorted: routes.lazy.filter { !$0.0.address.isV4 }.map {
            .init(start: $0.address.v6, length: $0.length, value: $1)
          })))
  }

  /// Where a table is, for whoever looks up much and keeps the table by other means.
  struct Reference: BitwiseCopyable {
    fileprivate let maps: StateReference<Maps>

    /// As `RouteTable.lookup`.
    @inline(__always) func lookup(_ address: IPAddress) -> UInt32? {
      address.isV4 ? maps.value.v4.lookup(address.v4) : maps.value.v6.lookup(address.v6)
    }
  }

  var reference: Reference { Reference(maps: maps.reference) }

  /// The number of the longest prefix that covers `address`.
  @inline(__always) package func lookup(_ address: IPAddress) -> UInt32? { reference.lookup(address) }

  /// Bytes that the compiled tables take.
  package var memory: Int { maps.reference.value.v4.memory + maps.reference.value.v6.memory }
}

extension IPAddress {
  var v6: UInt128 { UInt128(high) << 64 | UInt128(low) }
}
