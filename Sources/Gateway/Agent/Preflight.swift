import Host

/// What a gateway needs of the machine, checked before anything is created.
enum Preflight {
  /// - Throws: `OperatorError`.
  static func check() throws(OperatorError) {
    if let privileges = Privileges.current, !privileges.contains(.network) {
      throw OperatorError(
        "no privilege to set up a tunnel device (CAP_NET_ADMIN)",
        remedy: "run as root, or from a service manager that grants it (AmbientCapabilities=CAP_NET_ADMIN)")
    }
    guard (try? FileStatus(of: "/dev/net/tun")) != nil else {
      throw OperatorError(
        "/dev/net/tun is missing",
        remedy: "load the kernel module with 'modprobe tun'; in a container, pass the device in")
    }
  }
}
