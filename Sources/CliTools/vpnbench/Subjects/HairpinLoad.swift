import Transports

/// What forwards.
enum Forwarder: String, CaseIterable { case proxy, plain, splice, relay }

/// What is sent.
struct HairpinLoad: Sendable {
  let id: String
  let title: String
  /// Bytes of a sealed packet, and packets of a train.
  let size: Int
  let train: Int
  let paths: Paths

  /// The kinds of path of both ends.
  struct Paths: Sendable {
    let source: Encapsulation
    let sink: Encapsulation
  }

  var forwarders: [Forwarder] { [.proxy, paths.source == .tcp && paths.sink == .tcp ? .splice : .plain] }

  static let all = [
    HairpinLoad(
      id: "trains", title: "UDP, trains of 44 × 1440", size: 1440, train: 44, paths: Paths(source: .udp, sink: .udp)),
    HairpinLoad(id: "small", title: "UDP, single 100", size: 100, train: 1, paths: Paths(source: .udp, sink: .udp)),
    HairpinLoad(id: "stream", title: "TCP, 1440", size: 1440, train: 44, paths: Paths(source: .tcp, sink: .tcp)),
    HairpinLoad(
      id: "from-stream", title: "TCP to UDP, 1440", size: 1440, train: 44, paths: Paths(source: .tcp, sink: .udp)),
    HairpinLoad(
      id: "to-stream", title: "UDP to TCP, 1440", size: 1440, train: 44, paths: Paths(source: .udp, sink: .tcp)),
  ]
}
