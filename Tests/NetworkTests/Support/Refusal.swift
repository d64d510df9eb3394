import Glibc

@testable import Lab

/// A datagram to a port that nobody listens on.
enum Refusal {
  /// Whether the sender is told so, by an ICMP error that the kernel recognises as being about its datagram.
  static func asks(_ address: String) -> Bool {
    guard let endpoint = try? Endpoint(address, port: 9), let socket = try? Socket(.datagram, isV6: endpoint.isV6),
      (try? socket.connect(endpoint)) != nil, (try? socket.setTimeout(3)) != nil
    else { return false }
    let buffer = LabBuffer(count: 64)
    _ = socket.send(buffer, 0, 8)
    return socket.receive(buffer) == -Int(ECONNREFUSED)
  }
}
