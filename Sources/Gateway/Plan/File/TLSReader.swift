import Glibc
import Host
import PacketIO
import Settings
import Transports

/// Reads what the TLS port shows: the group `tls`.
struct TLSReader {
  private let group: SettingReader
  /// Relative paths begin here.
  private let directory: String

  static let known = ["certificate", "key", "web-server"]
  private static let largestFile = 1 << 20

  /// Nil where the file does not mention it.
  init?(_ top: SettingReader, directory: String) {
    guard let group = top.group("tls", known: TLSReader.known) else { return nil }
    self.group = group
    self.directory = directory
    if !top.has("listen-tls") {
      top.add("tls", "there is no port to show it on", "add 'listen-tls: 443', or remove 'tls'")
    }
  }

  func plan() -> PlannedTLS {
    var plan = PlannedTLS()
    plan.certificate = certificate()
    plan.webServer = path("web-server")
    if let path = plan.webServer, path.utf8.count > UnixSocket.longestPath {
      group.add("web-server", "the path is longer than \(UnixSocket.longestPath) bytes", "choose a shorter one")
    }
    return plan
  }

  private func path(_ name: String) -> String? {
    group.text(name, "write a path").map { GatewayFileReader.resolve($0.value, in: directory) }
  }

  private func certificate() -> TLSCertificate? {
    for (name, other) in [("certificate", "key"), ("key", "certificate")] where group.has(name) && !group.has(other) {
      group.add(
        name, "stands without '\(other)'", "name both files, or neither: then one is made at each start")
    }
    guard let chainPath = path("certificate"), let keyPath = path("key"), let chain = chain(chainPath) else {
      return nil
    }
    var key: [UInt8]
    do {
      key = try KeyFile.readPrivate(keyPath, "key file", remedy: "name the file with the certificate's private key")
    } catch {
      group.add("key", error.problem, error.remedy)
      return nil
    }
    do {
      return try TLSCertificate(chain: chain, key: KeyMaterial(taking: &key))
    } catch {
      switch error {
      case .noCertificate:
        group.add(
          "certificate", "\(chainPath) has no certificate", "write it in PEM, the server's first, then its issuers'")
      case .noKey:
        group.add(
          "key", "\(keyPath) has no private key that can be read",
          "write it in PEM without a password "
            + "(openssl pkey -in OLD -out NEW)")
      case .noTLS:
        group.add(
          "certificate", "libssl has no TLS 1.3",
          "install OpenSSL 3, and have its configuration (OPENSSL_CONF) allow TLS 1.3")
      case .anotherKey:
        group.add("key", "\(keyPath) is not the key of \(chainPath)", "name the two files that were made together")
      }
      return nil
    }
  }

  private func chain(_ path: String) -> [UInt8]? {
    do {
      return try Descriptor(open: path, O_RDONLY | O_NONBLOCK).readAll(limit: TLSReader.largestFile)
    } catch {
      let remedy =
        error.errno == ENOENT
        ? "correct the name, or remove 'certificate' and 'key': then one is made at each start"
        : "let the user who runs this read it"
      group.add("certificate", "certificate file \(path) cannot be read: \(error.reason)", remedy)
      return nil
    }
  }
}
