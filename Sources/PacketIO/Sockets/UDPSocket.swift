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
      UDPSocket.open(
        endpoint, waits: false, isShared: workers > 1, keepsErrors: true, bufferSize: UDPSocket.bufferSize)
    }
    if workers > 1, worker == 0 { try steer(workers) }
  }

  /// - Parameters:
  ///   - waits: whether the ring shall wait for it: it does so only for sockets that block.
  ///   - isShared: whether others are to be bound to the same port.
  ///   - tellsDestinations: whether each datagram comes with the address that it was sent to
  ///     (`ReceivedMessage.destination`); then all come singly and without their traffic class.
  ///   - keepsErrors: whether errors of packets that were sent are kept for `takeError`. Each fails a later send or receive
  ///     too, which may be about something else: see `mayBeEarlier`.
  ///   - bufferSize: bytes the kernel may queue in each direction.
  /// - Returns: the descriptor, or a negated errno.
  package static func open(
    _ endpoint: Endpoint, waits: Bool, isShared: Bool = false, tellsDestinations: Bool = false,
    keepsErrors: Bool = false, bufferSize: Int32
  ) -> Int32 {
    let isV4 = endpoint.address.isV4
    let descriptor = KernelSocket.udp.open(endpoint.address, flags: waits ? 0 : Int32(SOCK_NONBLOCK.rawValue))
    guard descriptor >= 0 else { return -errno }
    if !tellsDestinations { KernelSocket.set(descriptor, Int32(CULVERT_SOL_UDP), Int32(CULVERT_UDP_GRO), 1) }
    // Packets go out whole and unfragmented, whatever the kernel makes of ICMP: what a path takes is found elsewhere, with
    // probes, or from messages that are looked into (RFC 8899 §4.6).
    if isV4 {
      KernelSocket.set(descriptor, Int32(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
      KernelSocket.set(descriptor, Int32(IPPROTO_IP), tellsDestinations ? IP_PKTINFO : IP_RECVTOS, 1)
    } else {
      KernelSocket.set(descriptor, Int32(IPPROTO_IPV6), IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
      KernelSocket.set(descriptor, Int32(IPPROTO_IPV6), tellsDestinations ? IPV6_RECVPKTINFO : IPV6_RECVTCLASS, 1)
    }
    if keepsErrors {
      let (level, option) = isV4 ? (IPPROTO_IP, IP_RECVERR) : (IPPROTO_IPV6, IPV6_RECVERR)
      KernelSocket.set(descriptor, Int32(truncatingIfNeeded: level), option, 1)
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

  /// Bytes that `takeError` needs to work in: a `sockaddr`, control data, and the beginning of the quoted datagram.
  package static let errorRoom = errorNameCapacity + errorControlCapacity + errorPayloadCapacity
  private static let errorNameCapacity = 32
  private static let errorControlCapacity = 128
  private static let errorPayloadCapacity = 32

  /// Takes the next error from the socket's queue.
  /// - Returns: false when there is none; `refusal` is set where it is about a packet's size.
  package func takeError(_ room: PacketBytes, _ refusal: inout SizeRefusal?) -> Bool {
    refusal = nil
    let name = room.slice(0, UDPSocket.errorNameCapacity)
    let control = room.slice(name.count, UDPSocket.errorControlCapacity)
    let payload = room.slice(name.count + control.count, UDPSocket.errorPayloadCapacity)
    var vector = unsafe iovec(iov_base: payload.pointer, iov_len: payload.count)
    var header = unsafe msghdr()
    unsafe header.msg_name = UnsafeMutableRawPointer(name.pointer)
    unsafe header.msg_namelen = UInt32(clamping: name.count)
    unsafe header.msg_control = UnsafeMutableRawPointer(control.pointer)
    unsafe header.msg_controllen = control.count
    unsafe header.msg_iovlen = 1
    let count = unsafe withUnsafeMutablePointer(to: &vector) {
      unsafe header.msg_iov = $0
      return unsafe recvmsg(descriptor, &header, Int32(MSG_ERRQUEUE) | Int32(MSG_DONTWAIT))
    }
    guard count >= 0 else { return false }
    unsafe refusal = SizeRefusal(
      name: name.slice(0, min(Int(truncatingIfNeeded: header.msg_namelen), name.count)),
      control: control.slice(0, min(Int(truncatingIfNeeded: header.msg_controllen), control.count)),
      payload: payload.slice(0, min(count, payload.count)))
    return true
  }

  /// Whether a send may have failed by what became of an earlier packet, and not for itself: these are the errors into
  /// which the kernel turns ICMP. The first of them come by ICMP only.
  package static func mayBeEarlier(_ error: Int32) -> Bool {
    isEarlier(error) || [EMSGSIZE, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, EACCES, EOPNOTSUPP, ENONET].contains(error)
  }

  package static func isEarlier(_ error: Int32) -> Bool { [ECONNREFUSED, EPROTO, ENOPROTOOPT].contains(error) }

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
