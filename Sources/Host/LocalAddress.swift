package import PacketIO

/// Which of this machine's addresses packets leave from.
package enum LocalAddress {
  /// The one that the kernel chooses towards `endpoint`; nil where there is no route. Nothing is sent.
  package static func toward(_ endpoint: Endpoint) -> IPAddress? {
    let descriptor = KernelSocket.udp.open(endpoint.address)
    guard descriptor >= 0 else { return nil }
    defer { KernelSocket.close(descriptor) }
    return SocketName(endpoint).connect(descriptor) ? TCPSocket.local(descriptor)?.address : nil
  }
}
