import Foundation
import Glibc
import PacketIO
import Synchronization
import Transports

/// A file to which lines are appended, each with one write.
final class LineFile: Sendable {
  private let descriptor: Int32
  private let path: String
  private let hasComplained = Mutex(false)

  /// - Parameter path: "-": standard output.
  init(path: String) throws {
    self.path = path
    descriptor = path == "-" ? 1 : unsafe open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640)
    if descriptor < 0 { throw SystemError("open \(path)", errno: errno, remedy: "name a file that can be written") }
  }

  /// - Parameter isDurable: it is on stable storage when this returns.
  func write(_ line: String, isDurable: Bool = false) {
    let bytes = Array((line + "\n").utf8)
    let done = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
    let failed = done != bytes.count || (isDurable && fdatasync(descriptor) != 0)
    // The relay goes on without its records; once is enough to say so.
    guard failed,
      hasComplained.withLock({ old in
        defer { old = true }
        return !old
      })
    else { return }
    let problem = SystemError("write \(path)", errno: errno, remedy: "free some space, or name another file")
    FileHandle.standardError.write(Data("culvert-relay: \(problem)\n".utf8))
  }
}

/// The file of used tickets: a line for each change, the last one of a ticket counts. Read and shortened at the start.
enum UsedTickets {
  /// What is still to be remembered.
  static func read(_ path: String, now: UInt64) throws -> [HairpinUse] {
    guard FileManager.default.fileExists(atPath: path) else { return [] }
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      throw RelayProblem(
        "\(path) cannot be read", remedy: "make it readable, or remove it: used tickets then count anew")
    }
    var uses: [HairpinNumber: HairpinUse] = [:]
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    for (index, line) in lines.enumerated() where !line.isEmpty {
      guard let use = HairpinUse(line: String(line)) else {
        // A machine that stopped while the last line was written.
        if index == lines.count - 1 { break }
        throw RelayProblem("\(path):\(index + 1) is no used ticket", remedy: "remove the line")
      }
      uses[use.number] = use.notAfter >= now ? use : nil
    }
    let kept = uses.values.sorted { ($0.notAfter, $0.number.high) < ($1.notAfter, $1.number.high) }
    do {
      try Data(kept.map { $0.line + "\n" }.joined().utf8).write(to: URL(filePath: path), options: .atomic)
    } catch {
      throw RelayProblem("\(path) cannot be written", remedy: "make its directory writable for this user")
    }
    return kept
  }
}
