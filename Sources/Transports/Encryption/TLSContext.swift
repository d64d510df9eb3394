import CLibSSL
import Glibc
package import PacketIO
import Synchronization

/// What all TLS streams that are accepted have in common, or all that are dialled: TLS 1.3 alone (RFC 8446), no session
/// that outlives its stream, and the application protocols that a web server or a browser names (RFC 7301).
@safe package final class TLSContext: Sendable {
  /// The name in a certificate that is made here: one that many machines have.
  static let neutralName = "localhost"
  /// Seconds for which that certificate is valid: what browsers take at most.
  private static let validity = 397 * 86_400

  /// Something of libssl's that any thread may use.
  @safe private struct Handle: @unchecked Sendable {
    let pointer: OpaquePointer
  }

  /// How sessions read and write: one for all, because those of a certificate that was renewed go on.
  private static let method = unsafe culvert_tls_method().map { unsafe Handle(pointer: $0) }

  let isServer: Bool
  private let current: Mutex<Handle>

  private init(isServer: Bool, _ handle: Handle) {
    self.isServer = isServer
    current = Mutex(handle)
  }

  deinit { current.withLock { unsafe SSL_CTX_free($0.pointer) } }

  /// - Throws: `Problem.noTLS`.
  private static func make(isServer: Bool) throws(TLSCertificate.Problem) -> Handle {
    guard method != nil, let context = unsafe culvert_tls_context(isServer ? 1 : 0) else { throw .noTLS }
    return unsafe Handle(pointer: context)
  }

  private static func make(showing certificate: TLSCertificate?) throws(TLSCertificate.Problem) -> Handle {
    let handle = try make(isServer: true)
    do throws(TLSCertificate.Problem) {
      try use(certificate, handle)
      return handle
    } catch {
      unsafe SSL_CTX_free(handle.pointer)
      throw error
    }
  }

  private static func use(_ certificate: TLSCertificate?, _ handle: Handle) throws(TLSCertificate.Problem) {
    guard let certificate else {
      var random = SystemRandomNumberGenerator()
      // Positive, and not zero (RFC 5280 §4.1.2.2).
      let serial = [UInt8.random(in: 1...0x7F, using: &random)] + (0..<15).map { _ in random.next() as UInt8 }
      guard unsafe culvert_tls_use_own(handle.pointer, neutralName, serial, serial.count, validity) == 1 else {
        throw .noCertificate
      }
      return
    }
    let problem = unsafe certificate.key.withBytes { key in
      unsafe culvert_tls_use(
        handle.pointer, certificate.chain, certificate.chain.count, key.baseAddress, key.count)
    }
    switch problem {
    case 0: break
    case 1: throw .noCertificate
    case 2: throw .noKey
    default: throw .anotherKey
    }
  }

  /// For streams that are accepted.
  /// - Parameter certificate: nil: one is made, for `neutralName`.
  package convenience init(showing certificate: TLSCertificate?) throws(TLSCertificate.Problem) {
    self.init(isServer: true, try TLSContext.make(showing: certificate))
  }

  /// For streams that are dialled.
  /// - Parameter authorities: PEM of the certificates that vouch for names; nil: the system's.
  convenience init(trusting authorities: [UInt8]?) throws(TLSCertificate.Problem) {
    let handle = try TLSContext.make(isServer: false)
    if let authorities { _ = unsafe culvert_tls_trust(handle.pointer, authorities, authorities.count) }
    self.init(isServer: false, handle)
  }

  /// Shows another certificate from now on, from any thread; streams that are there go on under theirs.
  package func show(_ certificate: TLSCertificate?) throws(TLSCertificate.Problem) {
    let new = try TLSContext.make(showing: certificate)
    let old = current.withLock { handle in
      defer { handle = new }
      return handle
    }
    // Sessions hold it as long as they need it.
    unsafe SSL_CTX_free(old.pointer)
  }

  /// A session; nil for want of memory, or where the name is none.
  @unsafe func session(name: String?) -> UnsafeMutablePointer<culvert_tls>? {
    guard let method = TLSContext.method else { return nil }
    // Under the lock, so that what it begins with is not let go of.
    let session = current.withLock { handle in
      guard let name else {
        return unsafe Session(pointer: culvert_tls_new(handle.pointer, method.pointer, isServer ? 1 : 0, nil))
      }
      return unsafe Session(pointer: culvert_tls_new(handle.pointer, method.pointer, isServer ? 1 : 0, name))
    }
    return unsafe session.pointer
  }

  @safe private struct Session: @unchecked Sendable {
    let pointer: UnsafeMutablePointer<culvert_tls>?
  }

  /// What an operator is told where libssl cannot do what is needed.
  package static let unavailable = SystemError(
    "use TLS 1.3", errno: EPROTONOSUPPORT,
    remedy: "install OpenSSL 3, and have its configuration (OPENSSL_CONF) allow TLS 1.3")
}
