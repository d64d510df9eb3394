import Dataplane
import Glibc
import Lab
import PacketIO

/// strongSwan with its IPsec in user space, which answers none of our probes: another implementation of ESP in UDP.
///
/// It negotiates its keys with a second strongSwan at the other gateway's address. That one is killed when it has, without
/// a farewell, and whoever takes its address and keys takes its place.
final class StrongSwanPeer: Sendable {
  /// Debian's packages: charon-systemd, strongswan-swanctl, libcharon-extra-plugins, libstrongswan-standard-plugins.
  static let isInstalled: Bool = {
    if Tool.exists("charon-systemd"), Tool.exists("swanctl") { return true }
    print("SKIPPED: tests with strongSwan: it is missing; run scripts/setup --tests")
    return false
  }()

  /// What the two have agreed on, as whoever takes the other's place sends and receives.
  let send: SecurityAssociationConfiguration
  let receive: SecurityAssociationConfiguration
  private let directory: TemporaryDirectory
  private let process: ProcessHandle

  /// - Parameters:
  ///   - own: where it is to be; `other`: whose place is to be taken.
  ///   - outer: addresses of both outside, its own first; `inner` likewise.
  init(in own: Namespace, other: Namespace, outer: (String, String), inner: (String, String)) throws {
    directory = try TemporaryDirectory()
    try own.ip(["addr add \(inner.0)/32 dev lo"])
    try other.ip(["addr add \(inner.1)/32 dev lo"])
    process = try StrongSwanPeer.start(
      "responder", in: own, directory, outer: outer, inner: inner, ids: ("them", "us"), initiates: false)
    let initiator = try StrongSwanPeer.start(
      "initiator", in: other, directory, outer: (outer.1, outer.0), inner: (inner.1, inner.0), ids: ("us", "them"),
      initiates: true)
    let responder = process
    try responder.waitUntil("agreeing on keys", timeout: 20) { $0.output.contains("established with SPIs") }
    initiator.signal(SIGKILL)
    _ = try initiator.wait(timeout: 10)
    try other.ip(["addr del \(inner.1)/32 dev lo"])
    // "CHILD_SA lan{1} established with SPIs 1f46316f_i 7a1d5cfc_o and …", and the keys as dumps of 20 bytes.
    let output = responder.output
    let words = output.split { $0 == " " || $0 == "\n" }
    func association(_ suffix: String, _ key: String) throws -> SecurityAssociationConfiguration {
      guard
        let spi = words.last(where: { $0.hasSuffix(suffix) && $0.count == 10 }).flatMap({
          UInt32($0.dropLast(2), radix: 16)
        })
      else { throw LabError("strongSwan names no SPI: \(output)") }
      return SecurityAssociationConfiguration(
        spi: spi, cipher: .aes128GCM, key: KeyMaterial(try StrongSwanPeer.dump(after: key, in: output)),
        extendedSequenceNumbers: false)
    }
    send = try association("_i", "encryption initiator key")
    receive = try association("_o", "encryption responder key")
  }

  func stop() { process.terminate() }

  private static func start(
    _ name: String, in namespace: Namespace, _ directory: TemporaryDirectory, outer: (String, String),
    inner: (String, String), ids: (String, String), initiates: Bool
  ) throws -> ProcessHandle {
    let socket = "unix://\(directory.path)/\(name).vici"
    let settings = try directory.write(
      "\(name).conf",
      """
      charon-systemd {
        load = random nonce openssl kdf kernel-libipsec kernel-netlink socket-default vici
        install_virtual_ip = no
        journal { default = -1 }
        filelog { stderr { path = stderr
          default = 0
          ike = 1
          chd = 4 } }
        plugins { vici { socket = \(socket) } }
      }
      swanctl { load = openssl }

      """)
    let connection = try directory.write(
      "\(name).swanctl",
      """
      connections { tunnel {
        version = 2
        local_addrs = \(outer.0)
        remote_addrs = \(outer.1)
        encap = yes
        mobike = no
        proposals = aes128gcm16-prfsha256-ecp256
        rekey_time = 0
        local { auth = psk
          id = \(ids.0) }
        remote { auth = psk
          id = \(ids.1) }
        children { lan {
          local_ts = \(inner.0)/32
          remote_ts = \(inner.1)/32
          esp_proposals = aes128gcm16
          rekey_time = 0
          start_action = \(initiates ? "start" : "none")
        } }
      } }
      secrets { ike-1 { secret = "for tests only" } }

      """)
    let process = try ProcessHandle("charon-systemd", [], environment: [("STRONGSWAN_CONF", settings)], in: namespace)
    let limit = monotonicSeconds() + 10
    while true {
      do {
        try Tool.run(
          "swanctl", ["--load-all", "--file", connection, "--uri", socket],
          environment: [("STRONGSWAN_CONF", settings)])
        return process
      } catch {
        // Its socket comes a moment after its device.
        guard monotonicSeconds() < limit, process.status == nil else { throw error }
        pause(seconds: 0.05)
      }
    }
  }

  /// The 20 bytes that are dumped in the lines after a title: "0: 73 E0 … FF  text".
  private static func dump(after title: String, in output: String) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var lines = output.split(separator: "\n").drop { !$0.contains(title) }.dropFirst()
    while bytes.count < 20, let line = lines.popFirst() {
      guard let colon = line.firstIndex(of: ":") else { break }
      for word in line[line.index(after: colon)...].split(separator: " ").prefix(min(16, 20 - bytes.count)) {
        guard word.count == 2, let byte = UInt8(word, radix: 16) else { break }
        bytes.append(byte)
      }
    }
    guard bytes.count == 20 else { throw LabError("strongSwan has dumped no \(title): \(output)") }
    return bytes
  }
}
