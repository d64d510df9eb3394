import Glibc
import Host
import PacketIO
import Relay
import Transports

/// The file of used tickets: a line for each change, the last one of a ticket counts. Read and shortened at the start.
enum UsedTickets {
  /// Bytes of a file that is read.
  private static let largestFile = 1 << 28

  /// Nil where there is no file. Whoever can change it can have a ticket used again.
  private static func text(_ path: String) throws(OperatorError) -> String? {
    let bytes: [UInt8]
    let status: FileStatus
    do throws(SystemError) {
      let file = try Descriptor(open: path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
      status = file.status
      bytes = try file.readAll(limit: largestFile)
    } catch {
      if error.errno == ENOENT { return nil }
      if error.errno == ELOOP {
        throw OperatorError("\(path) is a symbolic link", remedy: "set 'used-tickets' to the file it leads to")
      }
      throw OperatorError(
        "\(path) cannot be read: \(error.reason)",
        remedy: "make it readable, or remove it: used tickets then count anew")
    }
    if let objection = status.objection(to: path) { throw objection }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// What is still to be remembered; the file has nothing else then.
  static func read(_ path: String, now: UInt64) throws(OperatorError) -> [HairpinUse] {
    guard let kept = try kept(path, now: now) else { return [] }
    do {
      try PosixFile.writeAtomically(Array(kept.map { $0.line + "\n" }.joined().utf8), to: path, mode: 0o640)
    } catch {
      throw OperatorError("\(path) cannot be written: \(error.reason)", remedy: remedy)
    }
    return kept
  }

  static let remedy = "make its directory writable for this user"

  /// Nil: there is no file.
  static func kept(_ path: String, now: UInt64) throws(OperatorError) -> [HairpinUse]? {
    guard let text = try text(path) else { return nil }
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
    return uses.values.sorted { ($0.notAfter, $0.number.high) < ($1.notAfter, $1.number.high) }
  }
}
