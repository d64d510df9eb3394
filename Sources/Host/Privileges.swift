import CLinux
package import PacketIO

/// What a program may do beyond its user's rights, and how it gives that up.
///
/// 1. `begin`, first of all: what the start needs is kept, everything else goes, for good.
/// 2. `settle`, when everything is open: what is needed from then on is kept.
///
/// Both hold for all threads of the process.
package struct Privileges: OptionSet, Sendable {
  /// A bit for each capability (capabilities(7)).
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Devices, routes, addresses, packet filters.
  package static let network = Privileges(rawValue: 1 << UInt64(CAP_NET_ADMIN))
  /// Ports below 1024.
  package static let lowPorts = Privileges(rawValue: 1 << UInt64(CAP_NET_BIND_SERVICE))
  /// Frames as a device gives them, for the test of a new device's offloads.
  package static let frames = Privileges(rawValue: 1 << UInt64(CAP_NET_RAW))
  /// The program by which the kernel gives each of several workers its packets.
  package static let programs = Privileges(rawValue: 1 << 39)
  /// Memory that the kernel does not swap, for rings and keys.
  package static let lockedMemory = Privileges(rawValue: 1 << UInt64(CAP_IPC_LOCK))
  /// More open files than usual.
  package static let limits = Privileges(rawValue: 1 << UInt64(CAP_SYS_RESOURCE))

  /// What this thread has, and could use.
  package static var current: Privileges? {
    guard let status = PosixFile.text("/proc/thread-self/status") else { return nil }
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("CapEff:") }) else { return nil }
    return line.dropFirst(7).split { $0 == " " || $0 == "\t" }.first.flatMap { UInt64($0, radix: 16) }
      .map { Privileges(rawValue: $0) }
  }

  /// No program that this one starts gets rights that it does not have, nobody reads its memory, and a crash writes no
  /// core with keys in it.
  ///
  /// - Parameter kept: of what there is.
  /// - Throws: `SystemError`: the kernel refuses.
  package static func begin(keeping kept: Privileges) throws(SystemError) {
    try check(culvert_guard_memory(), "keep others from this program's memory")
    try check(culvert_keep_capabilities(kept.union(bounds).rawValue), "give up capabilities")
  }

  /// To give up more later.
  private static let bounds = Privileges(rawValue: 1 << UInt64(CAP_SETPCAP))

  /// - Parameters:
  ///   - kept: of what is left.
  ///   - startsPrograms: whether this program starts others from now on.
  /// - Throws: `SystemError`: the kernel refuses.
  package static func settle(keeping kept: Privileges, startsPrograms: Bool) throws(SystemError) {
    try check(culvert_keep_capabilities(kept.rawValue), "give up capabilities")
    try check(culvert_filter_system_calls(startsPrograms ? 1 : 0), "have system calls refused")
  }

  private static func check(_ status: Int32, _ what: String) throws(SystemError) {
    if status < 0 { throw SystemError(what, errno: -status) }
  }
}
