import Lab
import PacketIO
import Transports

/// Gateways that open hairpins over UDP with tickets of their own, as any gateway does, and then say nothing.
struct IdleGateways: ~Copyable {
  private let proxy: Endpoint
  private let authority: HairpinPrivateKey
  /// The proof keys of all, by side.
  private let keys: [HairpinPrivateKey]
  /// The one socket of all: a proxy tells them apart by their ports.
  private let descriptor: Int32
  private let pool = BufferPool(count: 1)
  private var random = SystemRandomNumberGenerator()

  /// - Parameter authority: the control system's key, which the proxy accepts.
  init(at proxy: Endpoint, authority: HairpinPrivateKey) throws {
    var random = SystemRandomNumberGenerator()
    let keys = HairpinEnd.allCases.compactMap { _ in HairpinPrivateKey.generate(using: &random) }
    guard keys.count == HairpinEnd.allCases.count else { throw LabError("no keys can be made") }
    let own = Endpoint(address: proxy.address, port: 0)
    let descriptor = UDPSocket.open(own, waits: false, bufferSize: UDPSocket.bufferSize)
    guard descriptor >= 0 else { throw LabError("no socket for idle gateways") }
    self.proxy = proxy
    self.authority = authority
    self.keys = keys
    self.descriptor = descriptor
  }

  deinit { KernelSocket.close(descriptor) }

  /// Opens so many hairpins, both sides of each.
  mutating func open(_ count: Int, now: UInt64) throws {
    for _ in 0..<count {
      let ticket = try SignedHairpinTicket(
        signing: HairpinTicket(
          number: .random(using: &random), first: party(.first), second: party(.second), notBefore: now - 60,
          notAfter: now + 3600),
        with: authority)
      for end in HairpinEnd.allCases { try open(ticket, end) }
    }
  }

  private func key(_ end: HairpinEnd) -> HairpinPrivateKey { keys[Int(end.rawValue)] }

  private func party(_ end: HairpinEnd) -> HairpinTicket.Party {
    HairpinTicket.Party(name: "idle-\(end)", encapsulations: [.udp], key: key(end).publicKey)
  }

  /// Presents a ticket, and proves itself on the port that it gets.
  private mutating func open(_ ticket: SignedHairpinTicket, _ end: HairpinEnd) throws {
    let number = ticket.ticket.number
    var present = HairpinMessage.Present(
      end: end, encapsulation: .udp, nonce: .random(using: &random), cookie: [], sequence: 1, signature: [],
      ticket: ticket.bytes)
    present.cookie = try cookie(nonce: present.nonce, token: .zero, at: proxy)
    present.signature = key(end).sign(HairpinMessage.proof(of: present, ticket: number)) ?? []
    guard case .accepted(_, let token, let port, _, _) = try ask(.present(present), at: proxy) else {
      throw LabError("the proxy refuses an idle hairpin: raise the limit of open files (ulimit -Hn)")
    }
    let own = Endpoint(address: proxy.address, port: port)
    var prove = HairpinMessage.Prove(
      nonce: .random(using: &random), cookie: [], token: token, sequence: 2, signature: [])
    prove.cookie = try cookie(nonce: prove.nonce, token: token, at: own)
    prove.signature =
      key(end).sign(HairpinMessage.proof(of: prove, end: end, encapsulation: .udp, ticket: number)) ?? []
    let answer = try ask(.prove(prove), at: own)
    guard case .welcome = answer else { throw LabError("the proxy does not let a gateway in: \(answer)") }
  }

  private func cookie(nonce: HairpinNumber, token: HairpinNumber, at endpoint: Endpoint) throws -> [UInt8] {
    guard case .challenge(nonce, let cookie) = try ask(.hello(nonce: nonce, token: token), at: endpoint) else {
      throw LabError("the proxy answers a hello with something else")
    }
    return cookie
  }

  /// The answer to a message; what is lost is said again.
  private func ask(_ message: HairpinMessage, at endpoint: Endpoint) throws -> HairpinMessage {
    for _ in 0..<10 {
      _ = UDPSocket.send(descriptor, message.encoded, to: SocketName(endpoint))
      let limit = monotonicSeconds() + 0.2
      while monotonicSeconds() < limit {
        let count = TCPSocket.receive(descriptor, into: pool.bytes(0))
        guard count > 0 else {
          pause(seconds: 0.000_02)
          continue
        }
        if let answer = HairpinMessage(pool.bytes(0).slice(0, count).array()) { return answer }
      }
    }
    throw LabError("the proxy does not answer")
  }
}
