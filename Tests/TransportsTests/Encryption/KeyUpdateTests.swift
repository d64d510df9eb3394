import CLibSSL
import Glibc
import Testing

@testable import Transports

/// Records of TLS that bring nothing to whoever reads, without end.
@Suite struct KeyUpdateTests {
  /// An own client, because no program sends as many key updates (RFC 8446 §4.6.3) as it can.
  private final class Client {
    private let tls: UnsafeMutablePointer<culvert_tls>
    private let context: OpaquePointer
    private let method: OpaquePointer
    private let memory = UnsafeMutablePointer<UInt8>.allocate(capacity: 1 << 20)

    init() throws {
      context = try #require(culvert_tls_context(0))
      method = try #require(culvert_tls_method())
      tls = try #require(culvert_tls_new(context, method, 0, nil))
      tls.pointee.output = memory
      tls.pointee.output_capacity = 1 << 20
    }

    deinit {
      culvert_tls_free(tls)
      SSL_CTX_free(context)
      BIO_meth_free(method)
      memory.deallocate()
    }

    /// Takes what has come, and has what is to go.
    func shake(_ input: [UInt8]) -> [UInt8] {
      input.withUnsafeBufferPointer { input in
        tls.pointee.input = input.baseAddress
        tls.pointee.input_count = input.count
        _ = culvert_tls_handshake(tls)
      }
      return take()
    }

    func updates(_ count: Int) throws -> [UInt8] {
      for _ in 0..<count {
        try #require(SSL_key_update(tls.pointee.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
        _ = culvert_tls_handshake(tls)
      }
      return take()
    }

    private func take() -> [UInt8] {
      defer { tls.pointee.output_count = 0 }
      return Array(UnsafeBufferPointer(start: memory, count: tls.pointee.output_count))
    }
  }

  /// One read ends, whatever has come: a relay has one thread for all.
  @Test func oneReadEnds() throws {
    let (client, server) = (try Client(), try TLSEnd(server: nil))
    var answer = client.shake([])
    while !server.isOpen, !answer.isEmpty {
      server.take(answer)
      answer = client.shake(server.give(1 << 20))
    }
    try #require(server.isOpen)
    var ends: [Int32] = [-1, -1]
    try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    defer { for end in ends { close(end) } }
    let records = try client.updates(7000)
    #expect(send(ends[0], records, records.count, Int32(MSG_DONTWAIT)) > 150_000)
    #expect(server.receive(ends[1]) == -Int(EAGAIN))
    var left: Int32 = 0
    #expect(ioctl(ends[1], UInt(FIONREAD), &left) == 0 && left > 0, "all of it was read at once")
    // And it goes on where it was.
    let before = left
    #expect(server.receive(ends[1]) == -Int(EAGAIN))
    #expect(ioctl(ends[1], UInt(FIONREAD), &left) == 0 && left < before)
    #expect(server.isOpen)
  }
}
