import Glibc
import PacketIO
import Testing

@testable import Transports

/// Sockets of streams as the kernel has them.
@Suite struct TCPSocketTests {
  private func option(_ socket: TCPSocket, _ level: Int32, _ name: Int32) -> Int32 {
    var value: Int32 = -1
    var length = socklen_t(4)
    return getsockopt(socket.descriptor, level, name, &value, &length) == 0 ? value : -1
  }

  /// A dead end is noticed: 20 seconds after something was sent, and while nothing is, after 15 seconds and what the
  /// kernel's questions take.
  @Test(arguments: ["127.0.0.1", "::1"]) func aDeadStreamIsNoticed(address: String) throws {
    let address = try #require(IPAddress(address))
    let socket = try #require(TCPSocket(dialling: address))
    defer { socket.close() }
    let tcp = Int32(IPPROTO_TCP)
    #expect(option(socket, tcp, TCP_USER_TIMEOUT) == 20_000)
    #expect(option(socket, SOL_SOCKET, SO_KEEPALIVE) == 1)
    #expect(option(socket, tcp, TCP_KEEPIDLE) == 15 && option(socket, tcp, TCP_KEEPINTVL) == 5)
    #expect(option(socket, tcp, TCP_NODELAY) == 1)
    #expect(fcntl(socket.descriptor, F_GETFD) & FD_CLOEXEC != 0)
  }

  /// What an operator reads when a port is taken or an address is not this machine's.
  @Test func whyASocketCannotBeBound() throws {
    let loopback = try #require(IPAddress("127.0.0.1"))
    let first = try TCPSocket(listeningAt: Endpoint(address: loopback, port: 4691))
    defer { first.close() }
    let taken = #expect(throws: SystemError.self) {
      try TCPSocket(listeningAt: Endpoint(address: loopback, port: 4691))
    }
    #expect(taken?.remedy?.contains("listen-tcp") == true && taken?.errno == EADDRINUSE)
    let foreign = try #require(IPAddress("192.0.2.77"))
    let strange = #expect(throws: SystemError.self) { try UDPSocket(address: foreign, port: 4692) }
    #expect(strange?.errno == EADDRNOTAVAIL && strange?.remedy?.contains("ip address") == true)
  }
}
