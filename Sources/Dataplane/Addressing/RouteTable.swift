package import PacketIO

/// Longest-prefix match from addresses to small numbers (peers). Compiled once, then only read, by any thread.
package final class RouteTable: Sendable {
  private let v4: PrefixMap<UInt32>
  private let v6: PrefixMap<UInt128>

  /// - Parameter routes: in any order; of equal prefixes the last counts. Numbers are below 2³¹ − 1.
  package init(_ routes: [(Prefix, UInt32)]) {
    v4 = PrefixMap(
      routes.lazy.filter(\.0.address.isV4).map { .init(start: $0.address.v4, length: $0.length, value: $1) })
    v6 = PrefixMap(
      routes.lazy.filter { !$0.0.address.isV4 }.map { .init(start: $0.address.v6, length: $0.length, value: $1) })
  }

  /// The number of the longest prefix that covers `address`.
  @inline(__always) package func lookup(_ address: IPAddress) -> UInt32? {
    address.isV4 ? v4.lookup(address.v4) : v6.lookup(address.v6)
  }

  /// Bytes that the compiled tables take.
  package var memory: Int { v4.memory + v6.memory }
}

extension IPAddress {
  var v6: UInt128 { UInt128(high) << 64 | UInt128(low) }
}
