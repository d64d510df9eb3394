package import PacketIO

/// A packet that begins a flow, as rules see it.
package struct FlowOpening: BitwiseCopyable, Sendable, Equatable {
  package var direction: TrafficDirection
  /// Protocol number.
  package var transport: UInt8
  package var source: IPAddress
  package var destination: IPAddress
  /// Zero where the protocol has none.
  package var sourcePort: UInt16
  package var destinationPort: UInt16
  /// ICMP and ICMPv6 only.
  package var icmpType: UInt8

  package init(
    direction: TrafficDirection, transport: UInt8, source: IPAddress, destination: IPAddress, sourcePort: UInt16 = 0,
    destinationPort: UInt16 = 0, icmpType: UInt8 = 0
  ) {
    self.direction = direction
    self.transport = transport
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.icmpType = icmpType
  }

  @inline(__always) var isV4: Bool { source.isV4 }
  @inline(__always) var hasPorts: Bool { transport == IPProtocol.tcp || transport == IPProtocol.udp }
  /// The partner's host.
  @inline(__always) var remote: IPAddress { direction == .outbound ? destination : source }
}
