import Glibc

/// Text files of /proc and /sys.
public enum ProcFile {
  /// The whole file; nil when it cannot be read.
  public static func read(_ path: String) -> String? { System.readFile(path) }

  /// The word, or all words, behind `key` at the beginning of a line: of "VmHWM:  1234 kB" it is "1234".
  public static func field(_ key: String, of path: String, wholeLine: Bool = false) -> String? {
    for line in (read(path) ?? "").split(separator: "\n") where line.hasPrefix(key) {
      let words = line.dropFirst(key.count).split { $0 == " " || $0 == "\t" || $0 == ":" }
      return wholeLine ? words.joined(separator: " ") : words.first.map(String.init)
    }
    return nil
  }

  /// Seconds that all processors together have worked since boot: everything but idle and waiting for disks.
  public static var busySeconds: Double {
    guard let line = read("/proc/stat")?.split(separator: "\n").first else { return 0 }
    let ticks = line.split(separator: " ").dropFirst().compactMap { Double($0) }
    guard ticks.count >= 8 else { return 0 }
    // user nice system idle iowait irq softirq steal (proc_stat(5)); guest time is part of user.
    return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  /// Share of processor time that the hypervisor gave to others since boot, in seconds.
  public static var stolenSeconds: Double {
    guard let line = read("/proc/stat")?.split(separator: "\n").first else { return 0 }
    let ticks = line.split(separator: " ").dropFirst().compactMap { Double($0) }
    return ticks.count >= 8 ? ticks[7] / Double(sysconf(Int32(_SC_CLK_TCK))) : 0
  }
}

enum ProcessEnvironment {
  /// "NAME=value" entries of this process.
  static var current: [String] {
    guard let text = ProcFile.read("/proc/self/environ") else { return [] }
    return text.split(separator: "\0").map(String.init)
  }
}
