import PacketIO
import Transports

/// Cookies by which a proxy recognises who can receive at an address, without having kept anything (as RFC 9147 §5.1
/// has it): bound to the address, to the client's number, to the port that was spoken to, and to a minute.
struct HairpinCookies {
  /// Seconds during which a cookie made at one moment is accepted, at least; at most twice as many.
  static let validity: UInt64 = 30
  private let code: MessageCode

  /// With a secret of its own.
  init() {
    var random = SystemRandomNumberGenerator()
    self.init(secret: (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &random) })
  }

  /// - Parameter secret: 32 random bytes that nobody else knows.
  init(secret: [UInt8]) { code = MessageCode(secret: secret) }

  func cookie(_ sender: Endpoint, nonce: HairpinNumber, port: UInt16, now: MonotonicTime) -> [UInt8] {
    make(sender, nonce, port, epoch: HairpinCookies.epoch(now))
  }

  func isValid(_ cookie: [UInt8], _ sender: Endpoint, nonce: HairpinNumber, port: UInt16, now: MonotonicTime) -> Bool {
    let epoch = HairpinCookies.epoch(now)
    if MessageCode.equal(cookie, make(sender, nonce, port, epoch: epoch)) { return true }
    return epoch > 0 && MessageCode.equal(cookie, make(sender, nonce, port, epoch: epoch - 1))
  }

  private static func epoch(_ now: MonotonicTime) -> UInt64 { now.nanoseconds / (validity * 1_000_000_000) }

  private func make(_ sender: Endpoint, _ nonce: HairpinNumber, _ port: UInt16, epoch: UInt64) -> [UInt8] {
    var bytes: [UInt8] = [sender.address.family.rawValue]
    bytes.append(number: sender.address.high)
    bytes.append(number: sender.address.low)
    bytes.append(number: sender.port)
    bytes.append(number: port)
    bytes.append(nonce)
    bytes.append(number: epoch)
    return code.code(of: bytes)
  }
}
