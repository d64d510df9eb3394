import Glibc
import Lab

/// The memory of a process, as root sees it.
struct ProcessMemory {
  private struct Mapping {
    let range: Range<Int>
    let name: String
    /// As proc_pid_smaps(5) has them: "lo" is locked, "dd" is never dumped.
    var flags: Set<Substring> = []
  }

  private let file: Int32
  private let mappings: [Mapping]

  init?(of pid: pid_t) {
    file = open("/proc/\(pid)/mem", O_RDONLY | O_CLOEXEC)
    guard file >= 0, let text = ProcFile.read("/proc/\(pid)/smaps") else { return nil }
    var mappings: [Mapping] = []
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      if words[0] == "VmFlags:" {
        mappings[mappings.count - 1].flags = Set(words.dropFirst())
      } else if !words[0].hasSuffix(":"), words.count >= 5 {
        let ends = words[0].split(separator: "-").compactMap { Int($0, radix: 16) }
        guard ends.count == 2, words[1].hasPrefix("r") else { continue }
        mappings.append(Mapping(range: ends[0]..<ends[1], name: words.count > 5 ? String(words[5]) : "anonymous"))
      }
    }
    self.mappings = mappings
  }

  /// Where these bytes lie in memory that may be swapped, or written into a core; of what is no file's.
  func unprotectedPlaces(of pattern: [UInt8]) -> [String] {
    mappings.filter { !$0.flags.isSuperset(of: ["lo", "dd"]) && !$0.name.hasPrefix("/") && !$0.name.hasPrefix("[v") }
      .filter { contains(pattern, in: $0.range) }.map { "\($0.name) \($0.flags.sorted().joined(separator: " "))" }
  }

  /// Whether they are anywhere at all.
  func hasProtected(_ pattern: [UInt8]) -> Bool {
    mappings.contains { $0.flags.isSuperset(of: ["lo", "dd"]) && contains(pattern, in: $0.range) }
  }

  private func contains(_ pattern: [UInt8], in range: Range<Int>) -> Bool {
    let step = 1 << 20
    var block = [UInt8](repeating: 0, count: step + pattern.count)
    var place = range.lowerBound
    while place < range.upperBound {
      let count = pread(file, &block, min(block.count, range.upperBound - place), place)
      if Self.contains(block, count, pattern) { return true }
      place += step
    }
    return false
  }

  private static func contains(_ block: [UInt8], _ count: Int, _ pattern: [UInt8]) -> Bool {
    block.withUnsafeBytes { bytes in
      guard let base = bytes.baseAddress else { return false }
      var start = 0
      // The C library looks for the first byte: a loop over all of them would take minutes without optimisation.
      while count - start >= pattern.count,
        let found = memchr(base + start, Int32(pattern[0]), count - start - pattern.count + 1)
      {
        if memcmp(found, pattern, pattern.count) == 0 { return true }
        start = UnsafeRawPointer(found) - base + 1
      }
      return false
    }
  }

  func close() { Glibc.close(file) }
}
