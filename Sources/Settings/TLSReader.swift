import Glibc
import Host
import PacketIO

/// Reads what a port for encrypted streams shows: the group `tls` of gateways' and relays' files.
package struct TLSReader {
  /// A certificate with those of its issuers, and its key, both PEM; and where they were read.
  package struct Files {
    package let chain: [UInt8]
    package var key: [UInt8]
    package let chainPath: String
    package let keyPath: String
  }

  private let group: SettingReader
  /// Relative paths begin here.
  private let directory: String

  private static let known = ["certificate", "key", "web-server"]
  private static let largestChain = 1 << 20

  /// Nil where the file does not mention it.
  package init?(_ top: SettingReader, directory: String) {
    guard let group = top.group("tls", known: TLSReader.known) else { return nil }
    self.group = group
    self.directory = directory
    if !top.has("listen-tls") {
      top.add("tls", "there is no port to show it on", "add 'listen-tls: 443', or remove 'tls'")
    }
  }

  /// The path of the web server's socket; nil: there is none.
  package func webServer() -> String? {
    let path = group.path("web-server", in: directory)
    if let path, path.utf8.count > UnixSocket.longestPath {
      group.add("web-server", "the path is longer than \(UnixSocket.longestPath) bytes", "choose a shorter one")
    }
    return path
  }

  /// Nil: there are none, or it was said what is wrong with them.
  package func files() -> Files? {
    for (name, other) in [("certificate", "key"), ("key", "certificate")] where group.has(name) && !group.has(other) {
      group.add(name, "stands without '\(other)'", "name both files, or neither: then one is made at each start")
    }
    guard let chainPath = group.path("certificate", in: directory), let keyPath = group.path("key", in: directory),
      let chain = chain(chainPath)
    else { return nil }
    do throws(OperatorError) {
      let key = try PrivateFile.read(keyPath, "key file", remedy: "name the file with the certificate's private key")
      return Files(chain: chain, key: key, chainPath: chainPath, keyPath: keyPath)
    } catch {
      group.add("key", error.problem, error.remedy)
      return nil
    }
  }

  /// Something is wrong with what the files hold.
  package func report(_ words: (setting: String, problem: String, remedy: String)) {
    group.add(words.setting, words.problem, words.remedy)
  }

  private func chain(_ path: String) -> [UInt8]? {
    do {
      return try Descriptor(open: path, O_RDONLY | O_NONBLOCK).readAll(limit: TLSReader.largestChain)
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
