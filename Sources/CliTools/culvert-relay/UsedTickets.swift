import Glibc
import Host
import PacketIO
import Relay
import Transports

/// The file of used tickets: a line for each change, the last one of a ticket counts. Read and shortened at the start.
enum UsedTickets {
  /// What is still to be remembered.
  static func read(_ path: String, now: UInt64) throws -> [HairpinUse] {
    guard (try? FileStatus(of: path)) != nil else { return [] }
    guard let text = PosixFile.text(path) else {
      throw OperatorError(
        "\(path) cannot be read", remedy: "make it readable, or remove it: used tickets then count anew")
    }
    var uses: [HairpinNumber: HairpinUse] = [:]
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    for (index, line) in lines.enumerated() where !line.isEmpty {
      guard let use = HairpinUse(line: String(line)) else {
        // A machine that stopped while the last line was written.
        if index == lines.count - 1 { break }
        throw OperatorError("\(path):\(index + 1) is no used ticket", remedy: "remove the line")
      }
      uses[use.number] = use.notAfter >= now ? use : nil
    }
    let kept = uses.values.sorted { ($0.notAfter, $0.number.high) < ($1.notAfter, $1.number.high) }
    do {
      try PosixFile.writeAtomically(Array(kept.map { $0.line + "\n" }.joined().utf8), to: path, mode: 0o640)
    } catch {
      throw OperatorError(
        "\(path) cannot be written: \(error.reason)", remedy: "make its directory writable for this user")
    }
    return kept
  }
}
