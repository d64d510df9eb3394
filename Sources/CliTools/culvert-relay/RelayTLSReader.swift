import Glibc
import Host
import PacketIO
import Settings
import Transports

/// Reads what a relay's port for encrypted streams shows: the group `tls`, as gateways have it.
struct RelayTLSReader {
  private let group: SettingReader
  /// Relative paths begin here.
  private let directory: String

  private static let known = ["certificate", "key", "web-server"]
  private static let largestFile = 1 << 20

  /// Nil where the file does not mention it.
  init?(_ top: SettingReader, directory: String) {
    guard let group = top.group("tls", known: RelayTLSReader.known) else { return nil }
    self.group = group
    self.directory = directory
    if !top.has("listen-tls") {
      top.add("tls", "there is no port to show it on", "add 'listen-tls: 443', or remove 'tls'")
    }
  }

  /// The path of the web server's socket; nil: there is none.
  func webServer() -> String? {
    let path = path("web-server")
    if let path, path.utf8.count > UnixSocket.longestPath {
      group.add("web-server", "the path is longer than \(UnixSocket.longestPath) bytes", "choose a shorter one")
    }
    return path
  }

  /// Nil: one is made at the start.
  func certificate() -> TLSCertificate? {
    for (name, other) in [("certificate", "key"), ("key", "certificate")] where group.has(name) && !group.has(other) {
      group.add(name, "stands without '\(other)'", "name both files, or neither: then one is made at each start")
    }
    guard let chainPath = path("certificate"), let keyPath = path("key"),
      let chain = read(chainPath, "certificate", isPrivate: false), var key = read(keyPath, "key", isPrivate: true)
    else { return nil }
    do throws(TLSCertificate.Problem) {
      return try TLSCertificate(chain: chain, key: KeyMaterial(taking: &key))
    } catch {
      let (name, problem, remedy) =
        switch error {
        case .noCertificate:
          ("certificate", "\(chainPath) has no certificate", "write it in PEM, the server's first, then its issuers'")
        case .noKey:
          (
            "key", "\(keyPath) has no private key that can be read",
            "write it in PEM without a password (openssl pkey -in OLD -out NEW)"
          )
        case .anotherKey:
          ("key", "\(keyPath) is not the key of \(chainPath)", "name the two files that were made together")
        case .noTLS:
          (
            "certificate", "libssl has no TLS 1.3",
            "install OpenSSL 3, and have its configuration (OPENSSL_CONF) allow TLS 1.3"
          )
        }
      group.add(name, problem, remedy)
      return nil
    }
  }

  private func read(_ path: String, _ name: String, isPrivate: Bool) -> [UInt8]? {
    do throws(SystemError) {
      let file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
      let status = file.status
      if isPrivate, let objection = status.objection(to: path) {
        group.add(name, objection.problem, objection.remedy)
        return nil
      }
      guard !isPrivate || status.foreignPermissions == 0 else {
        group.add(name, "others can read \(path)", "chmod 600 \(path)")
        return nil
      }
      return try file.readAll(limit: RelayTLSReader.largestFile)
    } catch {
      group.add(
        name, "\(path) cannot be read: \(error.reason)",
        "correct the name, let the user who runs this read it, or name neither: then one is made at each start")
      return nil
    }
  }

  private func path(_ name: String) -> String? {
    group.text(name, "write a path").map { text in
      text.value.hasPrefix("/") || directory == "." ? text.value : "\(directory)/\(text.value)"
    }
  }
}
