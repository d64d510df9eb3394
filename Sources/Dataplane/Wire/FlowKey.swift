package import PacketIO

/// What tells a flow from all others. Addresses and ports are named by the side they are on, so both directions of a
/// flow have one key.
package struct FlowKey: BitwiseCopyable, Equatable, Sendable {
  var localHigh: UInt64
  var localLow: UInt64
  var remoteHigh: UInt64
  var remoteLow: UInt64
  /// Local port, remote port, protocol and IP version, from the top.
  var selector: UInt64

  /// For ICMP queries `localPort` is the identifier; `remotePort` is the query's type, and who asks.
  @inline(__always)
  package init(local: IPAddress, remote: IPAddress, transport: UInt8, localPort: UInt16, remotePort: UInt16) {
    localHigh = local.high
    localLow = local.low
    remoteHigh = remote.high
    remoteLow = remote.low
    selector =
      UInt64(localPort) &<< 48 | UInt64(remotePort) &<< 32 | UInt64(transport) &<< 8 | UInt64(local.family.rawValue)
  }

  /// Of a TCP or UDP packet; `ports` are source and destination port as they stand in its header.
  @inline(__always)
  init(_ packet: InnerPacket, _ bytes: PacketBytes, ports: UInt32, _ direction: TrafficDirection) {
    let source = packet.source(bytes)
    let destination = packet.destination(bytes)
    let isOutbound = direction == .outbound
    localHigh = isOutbound ? source.high : destination.high
    localLow = isOutbound ? source.low : destination.low
    remoteHigh = isOutbound ? destination.high : source.high
    remoteLow = isOutbound ? destination.low : source.low
    let ordered = isOutbound ? ports : ports &<< 16 | ports &>> 16
    selector =
      UInt64(ordered) &<< 32 | UInt64(packet.transport) &<< 8
      | UInt64((packet.isV4 ? IPAddress.Family.v4 : .v6).rawValue)
  }

  @inline(__always) package var transport: UInt8 { UInt8(truncatingIfNeeded: selector &>> 8) }
  @inline(__always) package var localPort: UInt16 { UInt16(truncatingIfNeeded: selector &>> 48) }
  @inline(__always) package var remotePort: UInt16 { UInt16(truncatingIfNeeded: selector &>> 32) }
  @inline(__always) var isV4: Bool { selector & 0xFF == 4 }

  package var local: IPAddress { address(localHigh, localLow) }
  package var remote: IPAddress { address(remoteHigh, remoteLow) }

  private func address(_ high: UInt64, _ low: UInt64) -> IPAddress {
    isV4 ? IPAddress(v4: UInt32(truncatingIfNeeded: high &>> 32)) : IPAddress(v6High: high, low: low)
  }

  /// The flow as it began, to be judged again.
  func opening(by opener: TrafficDirection) -> FlowOpening {
    let isQuery = transport == (isV4 ? IPProtocol.icmp : IPProtocol.icmpV6)
    let ports: (local: UInt16, remote: UInt16) = isQuery ? (0, 0) : (localPort, remotePort)
    let outward = opener == .outbound
    return FlowOpening(
      direction: opener, transport: transport, source: outward ? local : remote,
      destination: outward ? remote : local, sourcePort: outward ? ports.local : ports.remote,
      destinationPort: outward ? ports.remote : ports.local,
      icmpType: isQuery ? UInt8(truncatingIfNeeded: remotePort &>> 8) : 0)
  }

  /// The second port of an ICMP query's key.
  @inline(__always)
  static func queryPort(type: UInt8, opener: TrafficDirection) -> UInt16 {
    UInt16(type) &<< 8 | UInt16(opener.rawValue)
  }
}

/// The secret that makes it impossible to choose flows that fall on one place of the table.
///
/// Sums of products of two words, each with a secret number added (NH, RFC 4418 §5.2, with words of 64 bits), then
/// mixed: two keys chosen without knowledge of the secret meet no oftener than by chance.
package struct FlowHash: BitwiseCopyable, Sendable {
  private let a, b, c, d, e, f: UInt64

  package init(using random: inout some RandomNumberGenerator) {
    a = random.next()
    b = random.next()
    c = random.next()
    d = random.next()
    e = random.next()
    f = random.next() | 1
  }

  @inline(__always)
  func hash(_ key: FlowKey) -> UInt32 {
    let sum =
      product(key.localHigh &+ a, key.remoteHigh &+ b) &+ product(key.localLow &+ c, key.remoteLow &+ d)
      &+ product(key.selector &+ e, f)
    let folded = UInt64(truncatingIfNeeded: sum) ^ UInt64(truncatingIfNeeded: sum &>> 64)
    return UInt32(truncatingIfNeeded: ((folded ^ (folded &>> 32)) &* 0x9FB2_1C65_1E98_DF25) &>> 32)
  }

  @inline(__always)
  private func product(_ x: UInt64, _ y: UInt64) -> UInt128 {
    let (high, low) = x.multipliedFullWidth(by: y)
    return UInt128(high) &<< 64 | UInt128(low)
  }
}
