import Lab

/// strongSwan with its IPsec in user space (plugin kernel-libipsec): one charon in each namespace, ESP in UDP.
///
/// `charon-systemd` and not `charon`, because two of the latter would meet at one PID file.
final class StrongSwan: Subject {
  let entry: Report.Subject
  let plan: SubjectPlan
  private(set) var processes: [ProcessHandle] = []
  private let program: String
  private var directory: TemporaryDirectory?
  /// The plugin's name for its device; it makes one and gives it this MTU, whatever the tunnel.
  private static let device = "ipsec0"

  init(name: String, program: String, _ plan: SubjectPlan) {
    let version = PeerProgram.version("swanctl", "--version")
    entry = Report.Subject(
      name: name, isBound: false, note: [version, "libipsec, aes-128-gcm"].compactMap(\.self).joined(separator: ", "))
    self.program = program
    self.plan = plan
  }

  func setUp(_ network: Network) throws {
    guard Tool.exists("swanctl") else {
      throw LabError("\(entry.name): swanctl is missing: install the package strongswan-swanctl")
    }
    try plan.addHosts(network)
    let directory = try TemporaryDirectory()
    self.directory = directory
    for side in 0...1 {
      // libipsec chooses its source address among those that the policy names.
      if plan.layout == .local {
        try gateway(network, side).ip([
          "addr add \(plan.prefix(side)) dev lo" + (plan.family == .six ? " nodad" : "")
        ])
      }
      let settings = try directory.write("\(side).strongswan", daemon(side, directory.path))
      let process = try ProcessHandle(
        program, [], environment: [("STRONGSWAN_CONF", settings)], in: gateway(network, side))
      processes.append(process)
      try process.waitUntil("making its device; is libcharon-extra-plugins installed?") { _ in
        (try? gateway(network, side).ip(["link set \(StrongSwan.device) mtu \(plan.mtu)"])) != nil
      }
    }
    // The second to be told asks the first, which knows it already.
    for side in 0...1 {
      let file = try directory.write("\(side).swanctl", connection(side))
      let limit = monotonicSeconds() + 10
      while true {
        do {
          try Tool.run(
            "swanctl", ["--load-all", "--file", file, "--uri", "unix://\(directory.path)/\(side).vici"],
            environment: [("STRONGSWAN_CONF", "\(directory.path)/\(side).strongswan")])
          break
        } catch {
          // Its socket comes a moment after its device.
          if monotonicSeconds() > limit || processes[side].status != nil { throw error }
          pause(seconds: 0.05)
        }
      }
    }
    try awaitRoad(network)
  }

  private func daemon(_ side: Int, _ path: String) -> String {
    """
    charon-systemd {
      load = random nonce openssl kdf kernel-libipsec kernel-netlink socket-default vici
      install_virtual_ip = no
      journal { default = -1 }
      filelog { stderr { path = stderr
        default = 0 } }
      plugins { vici { socket = unix://\(path)/\(side).vici } }
    }
    swanctl { load = openssl }

    """
  }

  private func connection(_ side: Int) -> String {
    """
    connections { tunnel {
      version = 2
      local_addrs = \(SubjectPlan.wire(side))
      remote_addrs = \(SubjectPlan.wire(1 - side))
      encap = yes
      mobike = no
      proposals = aes128gcm16-prfsha256-ecp256
      rekey_time = 0
      local { auth = psk
        id = end\(side) }
      remote { auth = psk
        id = end\(1 - side) }
      children { lan {
        local_ts = \(plan.prefix(side))
        remote_ts = \(plan.prefix(1 - side))
        esp_proposals = aes128gcm16
        rekey_time = 0
        start_action = \(side == 0 ? "none" : "start")
      } }
    } }
    secrets { ike-1 { secret = "vpnbench" } }

    """
  }

  func tearDown() {
    for process in processes { process.terminate() }
    processes = []
    directory?.remove()
    directory = nil
  }
}
