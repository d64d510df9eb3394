import CLinux
import Glibc

/// A bound UDP socket with segmentation offload on receipt.
package struct UDPSocket {
  package let descriptor: Int32

  /// Bytes the kernel may queue in each direction: some forty full trains.
  package static let bufferSize: Int32 = 4 << 20

  /// One that an operator has configured.
  /// - Parameter workers: how many sockets share the port, opened in the order of their workers' numbers.
  package init(address: IPAddress, port: UInt16, worker: Int = 0, of workers: Int = 1) throws(SystemError) {
    // A port that is shared could be shared with a stranger too: so it has to be free first.
    if workers > 1, worker == 0 { try UDPSocket(address: address, port: port).close() }
    let endpoint = Endpoint(address: address, port: port)
    descriptor = try KernelSocket.udp.patiently(endpoint) {
      UDPSocket.open(endpoint, waits: false, isShared: workers > 1, bufferSize: UDPSocket.bufferSize)
    }
    if workers > 1, worker == 0 { try steer(workers) }
  }

  /// - Parameters:
  ///   - waits: whether the ring shall wait for it: it does so only for sockets that block.
  ///   - isShared: whether others are to be bound to the same port.
  ///   - tellsDestinations: whether each datagram comes with the address that it was sent to
  ///     (`ReceivedMessage.destination`); then all come singly and without their traffic class.
  ///   - bufferSize: bytes the kernel may queue in each direction.
  /// - Returns: the descriptor, or a negated errno.
  package static func open(
    _ endpoint: Endpoint, waits: Bool, isShared: Bool = false, tellsDestinations: Bool = false, bufferSize: Int32
  ) -> Int32 {
    let isV4 = endpoint.address.isV4
    let descriptor = KernelSocket.udp.open(endpoint.address, flags: waits ? 0 : Int32(SOCK_NONBLOCK.rawValue))
    guard descriptor >= 0 else { return -errno }
    if !tellsDestinations { KernelSocket.set(descriptor, Int32(CULVERT_SOL_UDP), Int32(CULVERT_UDP_GRO), 1) }
    // Packets go out whole and unfragmented, whatever ICMP says: the path MTU is found with probes (RFC 8899 §4.6).
    if isV4 {
      KernelSocket.set(descriptor, Int32(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
      KernelSocket.set(descriptor, Int32(IPPROTO_IP), tellsDestinations ? IP_PKTINFO : IP_RECVTOS, 1)
    } else {
      KernelSocket.set(descriptor, Int32(IPPROTO_IPV6), IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
      KernelSocket.set(descriptor, Int32(IPPROTO_IPV6), tellsDestinations ? IPV6_RECVPKTINFO : IPV6_RECVTCLASS, 1)
    }
    KernelSocket.setBuffers(descriptor, bufferSize)
    if isShared { KernelSocket.set(descriptor, SOL_SOCKET, SO_REUSEPORT, 1) }
    return KernelSocket.udp.bind(descriptor, to: endpoint)
  }

  /// Has the kernel give each packet to the socket of the worker that its SPI names: the sockets of a port are numbered
  /// as they were bound. What is too short for an SPI goes to the first one.
  private func steer(_ workers: Int) throws(SystemError) {
    guard culvert_steer_by_spi(descriptor, UInt32(workers - 1)) == 0 else {
      let code = errno
      Glibc.close(descriptor)
      throw SystemError(
        "share a UDP port between workers", errno: code,
        remedy: "run one worker, or a kernel with SO_ATTACH_REUSEPORT_CBPF")
    }
  }

  /// Sends one datagram now; zero or an errno.
  /// - Parameter source: one of this machine's addresses; nil: as the route has it.
  package static func send(
    _ descriptor: Int32, _ bytes: [UInt8], to name: SocketName, from source: IPAddress? = nil
  ) -> Int32 {
    if let source { return send(descriptor, bytes, to: name, SourceControl(source)) }
    let sent = unsafe name.withPointer { address, length in
      unsafe bytes.withUnsafeBytes {
        unsafe sendto(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT), address, length)
      }
    }
    return sent < 0 ? errno : 0
  }

  private static func send(
    _ descriptor: Int32, _ bytes: [UInt8], to name: SocketName, _ control: SourceControl
  ) -> Int32 {
    var (bytes, name, control) = (bytes, name, control)
    return unsafe bytes.withUnsafeMutableBytes { bytes in
      unsafe withUnsafeMutablePointer(to: &name) { name in
        unsafe withUnsafeMutablePointer(to: &control) { control in
          var vector = unsafe iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
          return unsafe withUnsafeMutablePointer(to: &vector) { vector in
            var header = unsafe msghdr()
            unsafe header.msg_name = UnsafeMutableRawPointer(name)
            unsafe header.msg_namelen = name.pointee.length
            unsafe header.msg_iov = vector
            unsafe header.msg_iovlen = 1
            unsafe header.msg_control = UnsafeMutableRawPointer(control)
            unsafe header.msg_controllen = control.pointee.space
            return unsafe sendmsg(descriptor, &header, Int32(MSG_DONTWAIT)) < 0 ? errno : 0
          }
        }
      }
    }
  }

  /// Datagrams that the kernel dropped before they could be read.
  package static func kernelDrops(_ descriptor: Int32) -> UInt64 {
    // struct sk_meminfo: nine words, the last of them SK_MEMINFO_DROPS (Linux include/uapi/linux/sock_diag.h).
    var words: (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0, 0, 0, 0, 0, 0)
    var length = socklen_t(36)
    let option: Int32 = 55  // SO_MEMINFO
    let status = unsafe getsockopt(descriptor, SOL_SOCKET, option, &words, &length)
    return status == 0 && length == 36 ? UInt64(words.8) : 0
  }

  package func close() { Glibc.close(descriptor) }
}
