import Host

/// What a gateway needs of the machine, checked before anything is created.
enum Preflight {
  /// From `linux/capability.h`.
  private static let netAdmin: UInt64 = 1 << 12

  /// - Throws: `OperatorError`.
  static func check() throws(OperatorError) {
    if let capabilities = effectiveCapabilities(), capabilities & netAdmin == 0 {
      throw OperatorError(
        "no privilege to set up a tunnel device (CAP_NET_ADMIN)",
        remedy: "run as root, or grant it: setcap cap_net_admin+ep on the program")
    }
    guard (try? FileStatus(of: "/dev/net/tun")) != nil else {
      throw OperatorError(
        "/dev/net/tun is missing",
        remedy: "load the kernel module with 'modprobe tun'; in a container, pass the device in")
    }
  }

  /// Nil where /proc does not tell.
  private static func effectiveCapabilities() -> UInt64? {
    guard let status = PosixFile.text("/proc/self/status") else { return nil }
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("CapEff:") }) else { return nil }
    return line.dropFirst(7).split { $0 == " " || $0 == "\t" }.first.flatMap { UInt64($0, radix: 16) }
  }
}
