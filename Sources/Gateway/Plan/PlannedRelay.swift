import Identity
import PacketIO

/// One of the paths to an identity relay, as a gateway's plan has it: a relay that is reached by several stands in the list
/// once for each, the best first.
struct PlannedRelay: Sendable, Hashable {
  /// How the relay is reached.
  enum PathKind: String, Sendable, CaseIterable {
    case udp, tcp, tls

    /// Place in the list of transports.
    var transport: UInt8 {
      switch self {
      case .udp: TransportPlace.datagrams
      case .tcp: TransportPlace.streams
      case .tls: TransportPlace.encryptedStreams
      }
    }
  }

  /// Who it is: by this it is known, not by its address.
  var gid: HostIdentityTag
  var kind = PathKind.udp
  /// Where it takes datagrams, or streams.
  var endpoint: Endpoint
  /// What the certificate there has to be for; nil: any will do.
  var certificateName: String?
  /// Tickets that it is shown, as a control system has signed them.
  var tickets: [[UInt8]] = []

  var path: Path { Path(transport: kind.transport, endpoint: endpoint) }
}
