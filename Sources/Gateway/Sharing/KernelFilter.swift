import Dataplane
import Foundation
import Glibc
import Host
import PacketIO

/// Keeps the kernel's packet filter as the gateway needs it: puts the table there, replaces its rules, removes it.
///
/// What is given to `nft` stays in a file beside the control socket as long as the table does, so that the next start
/// after a crash knows what is left over.
struct KernelFilter {
  private let record: String
  private(set) var inForce: FilterRuleset?
  /// Why the tunnel is not guarded, which a gateway can run without.
  private(set) var problem: (any Error)?

  /// - Parameter record: path of that file, in a directory that is there.
  init(record: String) { self.record = record }

  /// Puts a ruleset in force as a whole, or none with nil; on an error everything stays as it was. Connections that
  /// the rules still allow go on.
  /// - Throws: `OperatorError`, `SystemError`; where nothing is shared, there is a `problem` instead.
  mutating func apply(_ new: FilterRuleset?) throws {
    problem = nil
    do {
      try replace(by: new)
    } catch {
      // What is shared must not go on being shared.
      guard let new, !new.shares, inForce?.shares != true else { throw error }
      problem = error
    }
  }

  private mutating func replace(by new: FilterRuleset?) throws {
    let old = leftOver
    if let new {
      try new.checkForwarding()
      if new == inForce, (try? KernelFilter.counters(new.table)) != nil { return }
      let isThere =
        inForce?.table == new.table && inForce?.shares == new.shares && (try? KernelFilter.counters(new.table)) != nil
      let removal = old.flatMap { $0 == new.table ? nil : FilterRuleset.removal($0) } ?? ""
      try run(removal + (isThere ? new.update : new.installation), of: new.table)
    } else if let old {
      try run(FilterRuleset.removal(old), of: old)
      try PosixFile.remove(record)
    }
    inForce = new
  }

  /// Removes the table.
  mutating func remove() throws { try apply(nil) }

  /// The table of the last run, or of this one.
  private var leftOver: String? {
    guard let text = PosixFile.text(record) else { return nil }
    // "# TABLE"
    let name = text.prefix { $0 != "\n" }.dropFirst(2)
    return name.hasPrefix(FilterRuleset.table("")) ? String(name) : nil
  }

  private func run(_ ruleset: String, of table: String) throws {
    let before = try? Descriptor(open: record, O_RDONLY).readAll(limit: 1 << 24)
    try PosixFile.writeAtomically(Array("# \(table)\n\(ruleset)".utf8), to: record)
    do {
      _ = try KernelFilter.nft(["-f", record])
    } catch {
      if let before { try? PosixFile.writeAtomically(before, to: record) } else { try? PosixFile.remove(record) }
      throw error
    }
  }

  // MARK: nft

  /// Packets by the table's counters: each counts one for a connection, except "refused", which counts packets.
  static func counters(_ table: String) throws -> [String: UInt64] {
    struct Answer: Decodable {
      struct Element: Decodable { var counter: Counter? }
      struct Counter: Decodable {
        var name: String
        var packets: UInt64
      }
      var nftables: [Element]
    }
    let gone = OperatorError("the table \(table) is gone", remedy: "run 'culvert reload'")
    let text: String
    do {
      text = try nft(["-j", "list", "counters", "table", "inet", table])
    } catch let error as OperatorError where error.problem.contains("No such file") {
      throw gone
    }
    let answer = try JSONDecoder().decode(Answer.self, from: Data(text.utf8))
    var counters: [String: UInt64] = [:]
    for counter in answer.nftables.compactMap(\.counter) { counters[counter.name] = counter.packets }
    guard !counters.isEmpty else { throw gone }
    return counters
  }

  /// Runs the program and returns what it printed.
  private static func nft(_ arguments: [String]) throws -> String {
    let path = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"].first {
      FileManager.default.isExecutableFile(atPath: $0)
    }
    guard let path else {
      throw OperatorError(
        "the program nft is missing", remedy: "install the package nftables, and run 'culvert reload'")
    }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    do {
      try process.run()
    } catch {
      throw OperatorError("\(path) cannot be started", remedy: "install the package nftables again")
    }
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationReason == .exit, process.terminationStatus == 0 else {
      let line = text.split(separator: "\n").first.map(String.init) ?? "no reason given"
      throw OperatorError(
        "nft refused the gateway's rules: \(line)",
        remedy: line.contains("not permitted")
          ? "run as root, or with the capability CAP_NET_ADMIN"
          : "see that the kernel has nftables with NAT (CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_INET)")
    }
    return text
  }
}

extension FilterRuleset {
  /// Kernel parameters without which nothing is shared, by family.
  private static let forwarding: [(IPAddress.Family, String, String)] = [
    (.v4, "IPv4", "net.ipv4.ip_forward"), (.v6, "IPv6", "net.ipv6.conf.all.forwarding"),
  ]

  /// The machine's forwarding is the operator's to switch on: it concerns more than this gateway.
  func checkForwarding() throws(OperatorError) {
    for (family, name, parameter) in FilterRuleset.forwarding where isShared(family) {
      guard FilterRuleset.value(parameter) == 0 else { continue }
      throw OperatorError(
        "sharing: this machine does not forward \(name)",
        remedy: "run 'sysctl -w \(parameter)=1', and put '\(parameter)=1' into /etc/sysctl.d")
    }
  }

  /// What nft cannot set, and the kernel's default leaves below the RFC's minimum.
  static var warning: OperatorError? {
    let parameter = "net.netfilter.nf_conntrack_icmp_timeout"
    guard let seconds = value(parameter), seconds < icmpQuery else { return nil }
    return OperatorError(
      "sharing: the kernel forgets pings after \(seconds) s, RFC 5508 asks for \(icmpQuery)",
      remedy: "run 'sysctl -w \(parameter)=\(icmpQuery)', and put it into /etc/sysctl.d")
  }

  private static func value(_ parameter: String) -> Int? {
    let path = "/proc/sys/" + parameter.replacing(".", with: "/")
    return PosixFile.text(path, limit: 64).flatMap { Int($0.filter { !$0.isWhitespace }) }
  }
}
