import CLinux
import Glibc
import Lab
import PacketIO

/// Forwarders that do nothing but forward, for comparison: no addresses are checked, nothing is counted.
enum PlainForwarder {
  private static let batch = 64
  private static let datagram = 2048
  private static let pipeBytes = 1 << 20
  private static let readBytes = 512 << 10

  static func run(
    _ kind: Forwarder, _ paths: HairpinLoad.Paths, from: Endpoint, to: Endpoint, until flag: StopFlag
  ) throws {
    switch (paths.source, paths.sink) {
    case (.udp, .udp): try datagrams(from, to, flag)
    case (.tcp, .tcp): try splice(from, to, flag)
    case (.tcp, .udp): try records(from, to, flag)
    case (.udp, .tcp): try layOut(from, to, flag)
    }
  }

  private static func open(_ type: __socket_type, bind endpoint: Endpoint?) throws -> Int32 {
    let descriptor = socket(AF_INET, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw LabError("no socket") }
    for option in [SO_RCVBUFFORCE, SO_SNDBUFFORCE] where type == SOCK_DGRAM {
      var size: Int32 = 2 << 20
      unsafe setsockopt(descriptor, SOL_SOCKET, option, &size, 4)
    }
    // So that the flag is seen.
    var patience = timeval(tv_sec: 0, tv_usec: 100_000)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    if let endpoint {
      var one: Int32 = 1
      unsafe setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
      var name = address(endpoint)
      let status = unsafe withUnsafePointer(to: &name) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(descriptor, $0, 16) }
      }
      guard status == 0 else { throw LabError("\(endpoint) is taken") }
    }
    return descriptor
  }

  private static func address(_ endpoint: Endpoint) -> sockaddr_in {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = endpoint.port.bigEndian
    name.sin_addr.s_addr = endpoint.address.v4.bigEndian
    return name
  }

  private static func connectPatiently(_ descriptor: Int32, _ endpoint: Endpoint) throws {
    var name = address(endpoint)
    for _ in 0..<100 {
      let status = unsafe withUnsafePointer(to: &name) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe connect(descriptor, $0, 16) }
      }
      if status == 0 { return }
      pause(seconds: 0.02)
    }
    throw LabError("nobody listens at \(endpoint)")
  }

  /// recvmmsg and sendmmsg, from one socket to a connected one.
  private static func datagrams(_ from: Endpoint, _ to: Endpoint, _ flag: StopFlag) throws {
    let input = try open(SOCK_DGRAM, bind: from)
    let output = try open(SOCK_DGRAM, bind: nil)
    defer {
      close(input)
      close(output)
    }
    try connectPatiently(output, to)
    let memory = FixedArray<UInt8>(repeating: 0, count: batch * datagram)
    var vectors = unsafe FixedArray<iovec>(repeating: iovec(), count: batch)
    var messages = unsafe FixedArray<culvert_mmsghdr>(repeating: culvert_mmsghdr(), count: batch)
    for index in 0..<batch {
      unsafe vectors[index] = iovec(iov_base: memory.pointer + index * datagram, iov_len: datagram)
      unsafe messages[index].header.msg_iov = vectors.pointer + index
      unsafe messages[index].header.msg_iovlen = 1
    }
    while !flag.isRaised {
      // 0x10000 is MSG_WAITFORONE: wait for the first, take what else is there.
      let count = unsafe culvert_recvmmsg(input, messages.pointer, UInt32(batch), 0x10000)
      guard count > 0 else { continue }
      for index in 0..<Int(count) { unsafe vectors[index].iov_len = Int(messages[index].length) }
      _ = unsafe culvert_sendmmsg(output, messages.pointer, UInt32(count), 0)
      for index in 0..<Int(count) { unsafe vectors[index].iov_len = datagram }
    }
  }

  /// The first stream that comes.
  private static func accept(_ from: Endpoint, _ flag: StopFlag) throws -> Int32? {
    let listener = try open(SOCK_STREAM, bind: from)
    defer { close(listener) }
    guard listen(listener, 4) == 0 else { throw LabError("cannot listen at \(from)") }
    var input: Int32 = -1
    while input < 0, !flag.isRaised { input = culvert_accept_cloexec(listener) }
    guard input >= 0 else { return nil }
    var patience = timeval(tv_sec: 0, tv_usec: 100_000)
    unsafe setsockopt(input, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    return input
  }

  /// Records of a stream to datagrams: large reads, and sendmmsg of what they hold.
  private static func records(_ from: Endpoint, _ to: Endpoint, _ flag: StopFlag) throws {
    guard let input = try accept(from, flag) else { return }
    let output = try open(SOCK_DGRAM, bind: nil)
    defer { for descriptor in [input, output] { close(descriptor) } }
    try connectPatiently(output, to)
    let memory = FixedArray<UInt8>(repeating: 0, count: readBytes)
    var vectors = unsafe FixedArray<iovec>(repeating: iovec(), count: batch)
    var messages = unsafe FixedArray<culvert_mmsghdr>(repeating: culvert_mmsghdr(), count: batch)
    for index in 0..<batch {
      unsafe messages[index].header.msg_iov = vectors.pointer + index
      unsafe messages[index].header.msg_iovlen = 1
    }
    var have = 0
    var isFirst = true
    while !flag.isRaised {
      let count = unsafe recv(input, memory.pointer + have, readBytes - have, 0)
      if count == 0 { return }
      guard count > 0 else { continue }
      have += count
      var offset = isFirst ? 6 : 0
      isFirst = false
      var staged = 0
      while have - offset >= 2 {
        let length = Int(memory[offset]) << 8 | Int(memory[offset + 1])
        guard length >= 2, have - offset >= length else { break }
        unsafe vectors[staged] = iovec(iov_base: memory.pointer + offset + 2, iov_len: length - 2)
        offset += length
        staged += 1
        guard staged == batch else { continue }
        _ = unsafe culvert_sendmmsg(output, messages.pointer, UInt32(staged), 0)
        staged = 0
      }
      if staged > 0 { _ = unsafe culvert_sendmmsg(output, messages.pointer, UInt32(staged), 0) }
      have -= offset
      unsafe memmove(memory.pointer, memory.pointer + offset, have)
    }
  }

  /// Datagrams to records of a stream: recvmmsg, and one gathered send.
  private static func layOut(_ from: Endpoint, _ to: Endpoint, _ flag: StopFlag) throws {
    let input = try open(SOCK_DGRAM, bind: from)
    let output = try open(SOCK_STREAM, bind: nil)
    defer { for descriptor in [input, output] { close(descriptor) } }
    try connectPatiently(output, to)
    guard unsafe send(output, "IKETCP", 6, 0) == 6 else { return }
    var memory = FixedArray<UInt8>(repeating: 0, count: batch * datagram)
    var vectors = unsafe FixedArray<iovec>(repeating: iovec(), count: batch)
    var messages = unsafe FixedArray<culvert_mmsghdr>(repeating: culvert_mmsghdr(), count: batch)
    for index in 0..<batch {
      unsafe vectors[index] = iovec(iov_base: memory.pointer + index * datagram + 2, iov_len: datagram - 2)
      unsafe messages[index].header.msg_iov = vectors.pointer + index
      unsafe messages[index].header.msg_iovlen = 1
    }
    while !flag.isRaised {
      let count = unsafe Int(culvert_recvmmsg(input, messages.pointer, UInt32(batch), 0x10000))
      guard count > 0 else { continue }
      for index in 0..<count {
        let length = unsafe Int(messages[index].length) + 2
        memory[index * datagram] = UInt8(truncatingIfNeeded: length >> 8)
        memory[index * datagram + 1] = UInt8(truncatingIfNeeded: length)
        unsafe vectors[index] = iovec(iov_base: memory.pointer + index * datagram, iov_len: length)
      }
      var message = unsafe msghdr()
      unsafe message.msg_iov = vectors.pointer
      unsafe message.msg_iovlen = count
      // Blocking, so all of it goes.
      if unsafe sendmsg(output, &message, Int32(MSG_NOSIGNAL)) < 0 { return }
      for index in 0..<count {
        unsafe vectors[index] = iovec(iov_base: memory.pointer + index * datagram + 2, iov_len: datagram - 2)
      }
    }
  }

  /// splice(2), looked up by name.
  @safe private struct Move {
    private typealias Splice =
      @convention(c) (
        Int32, UnsafeMutableRawPointer?, Int32, UnsafeMutableRawPointer?, Int, UInt32
      ) -> Int
    private let function: Splice

    init?() {
      guard let symbol = unsafe dlsym(nil, "splice") else { return nil }
      unsafe function = unsafe unsafeBitCast(symbol, to: Splice.self)
    }

    func callAsFunction(_ from: Int32, _ to: Int32, _ count: Int) -> Int {
      function(from, nil, to, nil, count, 1)
    }
  }

  /// One stream through a pipe.
  private static func splice(_ from: Endpoint, _ to: Endpoint, _ flag: StopFlag) throws {
    guard let input = try accept(from, flag) else { return }
    let output = try open(SOCK_STREAM, bind: nil)
    var ends: (Int32, Int32) = (-1, -1)
    _ = unsafe withUnsafeMutablePointer(to: &ends) {
      unsafe $0.withMemoryRebound(to: Int32.self, capacity: 2) { unsafe culvert_pipe_cloexec($0) }
    }
    defer { for descriptor in [input, output, ends.0, ends.1] { close(descriptor) } }
    // F_SETPIPE_SZ, which is declared for GNU sources only, as splice is.
    _ = fcntl(ends.1, 1031, Int32(pipeBytes))
    guard let move = Move() else { throw LabError("there is no splice here") }
    try connectPatiently(output, to)
    while !flag.isRaised {
      var count = move(input, ends.1, pipeBytes)
      if count == 0 { return }
      while count > 0, !flag.isRaised {
        let moved = move(ends.0, output, count)
        if moved <= 0, errno != EAGAIN { return }
        count -= max(moved, 0)
      }
    }
  }
}
