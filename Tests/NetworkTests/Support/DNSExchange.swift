import Glibc

@testable import Lab

/// One question and one answer over UDP between two namespaces, on the port of name servers.
struct DNSExchange: Sendable {
  var client: Namespace
  var server: Namespace
  /// The server's, as the client knows it.
  var address: String

  /// - Returns: the answer as it arrived.
  func run(_ question: [UInt8], _ answer: [UInt8]) throws -> [UInt8] {
    let serving = try server.inside {
      let socket = try Socket(.datagram, isV6: false)
      try socket.bind(Endpoint("0.0.0.0", port: 53))
      try socket.setTimeout(5)
      return socket
    }
    let thread = LabThread {
      var peer = sockaddr_storage()
      var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
      var bytes = [UInt8](repeating: 0, count: 512)
      unsafe withUnsafeMutablePointer(to: &peer) { peer in
        unsafe peer.withMemoryRebound(to: sockaddr.self, capacity: 1) { peer in
          guard unsafe recvfrom(serving.descriptor, &bytes, bytes.count, 0, peer, &length) > 0 else { return }
          _ = unsafe sendto(serving.descriptor, answer, answer.count, 0, peer, length)
        }
      }
    }
    let address = address
    let received = try client.inside {
      let socket = try Socket(.datagram, isV6: false)
      try socket.connect(Endpoint(address, port: 53))
      try socket.setTimeout(5)
      let buffer = LabBuffer(count: 512)
      buffer.store(question)
      _ = socket.send(buffer, 0, question.count)
      let count = socket.receive(buffer)
      return count > 0 ? buffer.bytes(0, count) : []
    }
    try thread.join()
    return received
  }
}

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
