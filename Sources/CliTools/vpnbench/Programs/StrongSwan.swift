import Lab

/// strongSwan with its IPsec in user space (plugin kernel-libipsec): one charon in each namespace, ESP in UDP.
///
/// `charon-systemd` and not `charon`, because two of the latter would meet at one PID file.
struct StrongSwan: VPNProgramSetup {
  let program: String
  let plan: SubjectPlan
  /// The plugin's name for its device; it makes one and gives it this MTU, whatever the tunnel.
  private static let device = "ipsec0"

  var notes: [String?] { [VPNProgram.version("swanctl", "--version"), "libipsec, aes-128-gcm"] }

  func start(_ peer: VPNProgramSubject, _ network: Network, in directory: TemporaryDirectory) throws {
    guard Tool.exists("swanctl") else {
      throw LabError("\(peer.entry.name): swanctl is missing: install the package strongswan-swanctl")
    }
    for side in 0...1 {
      // libipsec chooses its source address among those that the policy names.
      if plan.layout == .local {
        try peer.gateway(network, side).ip([
          "addr add \(plan.prefix(side)) dev lo" + (plan.family == .six ? " nodad" : "")
        ])
      }
      let settings = try directory.write("\(side).strongswan", daemon(side, directory.path))
      let process = try peer.run([], environment: [("STRONGSWAN_CONF", settings)], network, side)
      try process.waitUntil("making its device; is libcharon-extra-plugins installed?") { _ in
        (try? peer.gateway(network, side).ip(["link set \(StrongSwan.device) mtu \(plan.mtu)"])) != nil
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
          if monotonicSeconds() > limit || peer.processes[side].status != nil { throw error }
          pause(seconds: 0.05)
        }
      }
    }
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
}
