import Glibc

/// Text files of /proc and /sys.
public enum ProcFile {
  /// The whole file; nil when it cannot be read.
  public static func read(_ path: String) -> String? { System.readFile(path) }

  /// The word that follows `key` at the beginning of a line, as in "VmHWM:  1234 kB".
  public static func field(_ key: String, of path: String) -> String? {
    for line in (read(path) ?? "").split(separator: "\n") where line.hasPrefix(key) {
      return line.dropFirst(key.count).split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == ":" }).first.map(String.init)
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
