package import PacketIO

/// Longest-prefix match from addresses to small numbers (peers).
package final class RouteTable: Sendable {
  package init(_ routes: [(Prefix, UInt32)]) { fatalError() }
  /// The number of the longest prefix that covers `address`.
  package func lookup(_ address: IPAddress) -> UInt32? { fatalError() }
}
