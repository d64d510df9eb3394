import CLinux
import Glibc

/// A named network namespace of our own, deleted with its interfaces when it is removed or the process is stopped.
public final class Namespace: Sendable {
  /// What it is called in its topology, "alpha".
  public let label: String
  /// Its name for `ip netns`: unique, and tells which process it belongs to.
  public let name: String
  private let descriptor: Int32
  /// Nil: not ours to delete.
  private let token: Cleanup.Token?

  /// Creates the namespace with its loopback interface up.
  /// - Parameter label: letters, digits and hyphens.
  public init(_ label: String) throws {
    let name = "\(Cleanup.ownPrefix)\(Counter.next())-\(label)"
    let (descriptor, token) = try Cleanup.making {
      try Tool.ip(["netns", "add", name])
      let descriptor = System.openForReading("/run/netns/\(name)")
      if descriptor < 0 {
        let error = LabError.system("open the namespace \(name)", -descriptor)
        Namespace.delete(name)
        throw error
      }
      return descriptor
    } undo: { _ in
      Namespace.delete(name)
    }
    self.label = label
    self.name = name
    self.descriptor = descriptor
    self.token = token
    try ip(["link set lo up"])
    // Nothing but what we send shall be on the wires, and nothing shall wait for duplicate address detection.
    try set("net.ipv6.conf.all.accept_dad", "0")
    try set("net.ipv6.conf.default.accept_dad", "0")
    try set("net.ipv6.conf.default.router_solicitations", "0")
    try set("net.ipv4.conf.all.rp_filter", "0")
    try set("net.ipv4.conf.default.rp_filter", "0")
    try set("net.ipv4.ping_group_range", "0 2147483647")
    try set("net.ipv4.icmp_ratelimit", "0")
    try set("net.ipv6.icmp.ratelimit", "0")
  }

  /// Borrows a namespace that another process has made.
  public init(borrowing name: String) throws {
    descriptor = System.openForReading("/run/netns/\(name)")
    if descriptor < 0 { throw LabError.system("open the namespace \(name)", -descriptor) }
    self.name = name
    label = name
    token = nil
  }

  deinit {
    remove()
    close(descriptor)
  }

  /// Deletes it, and with it every interface inside. Processes that still run inside keep it alive without a name.
  public func remove() {
    if let token, Cleanup.forget(token) { Namespace.delete(name) }
  }

  private static func delete(_ name: String) { _ = try? Tool.ip(["netns", "delete", name]) }

  /// Moves the calling thread into the namespace, for good: use `inside` unless the thread is your own.
  func enter() throws {
    if culvert_setns(descriptor, Int32(CULVERT_CLONE_NEWNET)) != 0 {
      throw LabError.system("enter the namespace \(name)", remedy: "run as root")
    }
  }

  /// Runs `body` on a thread inside the namespace and waits for it. Sockets opened there stay there, also when they
  /// are used elsewhere afterwards.
  public func inside<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) throws -> Value {
    try LabThread(in: self, body).join()
  }

  /// The same without blocking the caller's thread.
  public func inside<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await LabThread(in: self, body).value
  }

  /// Runs `ip` commands inside, in one batch: "addr add 192.0.2.1/24 dev wire".
  public func ip(_ commands: [String]) throws {
    if commands.isEmpty { return }
    try Tool.ip(["-n", name, "-batch", "-"], input: commands.joined(separator: "\n") + "\n")
  }

  /// Sets a kernel parameter of this namespace, "net.ipv4.ip_forward". One that this kernel lacks is left alone.
  public func set(_ parameter: String, _ value: String) throws {
    let path = "/proc/sys/" + parameter.split(separator: ".").joined(separator: "/")
    let code = try inside { System.writeFile(path, value) }
    if code != 0, code != ENOENT { throw LabError.system("set \(parameter) to \(value)", code) }
  }
}

extension Namespace {
  /// Why namespaces cannot be made here, as one line with its remedy; nil: they can.
  public static var obstacle: String? {
    if !Tool.exists("ip") { return "the program ip is missing: install the package iproute2" }
    let attempt = LabThread<Int32> { culvert_unshare(Int32(CULVERT_CLONE_NEWNET)) == 0 ? 0 : errno }
    switch try? attempt.join() {
    case 0: break
    case EPERM, EACCES: return "network namespaces need root: run it with sudo"
    default: return "this kernel has no network namespaces (CONFIG_NET_NS)"
    }
    let directory = "/run/netns"
    if System.makeDirectory(directory) != 0 { return "\(directory) cannot be made: run it with sudo" }
    if !System.permits(directory, W_OK) { return "\(directory) cannot be written: run it with sudo" }
    return nil
  }

  /// Deletes namespaces whose process is gone, with the processes inside.
  static func reclaimAbandoned() {
    for name in System.names(in: "/run/netns") where Cleanup.isAbandoned(name) {
      let inside = (try? Tool.ip(["netns", "pids", name])) ?? ""
      for pid in inside.split(whereSeparator: \.isWhitespace).compactMap({ Int32($0) }) { kill(pid, SIGKILL) }
      delete(name)
    }
  }
}
