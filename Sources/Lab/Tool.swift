import Glibc
import Synchronization

/// Programs of the system that the lab runs.
public enum Tool {
  /// Where a program is, looking where administrators' programs are even when PATH does not.
  public static func path(_ name: String) -> String? {
    if name.contains("/") { return System.permits(name, X_OK) ? name : nil }
    let path = System.variable("PATH") ?? ""
    for directory in path.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
      let candidate = "\(directory)/\(name)"
      if System.permits(candidate, X_OK) { return candidate }
    }
    return nil
  }

  /// The path of the program that is running.
  public static let thisProgram = System.linkTarget("/proc/self/exe") ?? "/proc/self/exe"

  /// Whether `path` finds it.
  public static func exists(_ name: String) -> Bool { path(name) != nil }

  /// Runs a program to its end and returns what it printed.
  /// - Throws: `LabError` with the program's own words when its exit status is not 0.
  @discardableResult
  public static func run(
    _ name: String, _ arguments: [String], environment: [(String, String)] = [], input: String? = nil,
    in namespace: Namespace? = nil
  ) throws -> String {
    let process = try ProcessHandle(
      name, arguments, environment: environment, in: namespace, input: input, isRegistered: false)
    let status = try process.wait(timeout: 60)
    let output = process.output
    guard status == .exited(0) else {
      let words = output.split(separator: "\n").first.map(String.init) ?? "\(status)"
      throw LabError("\(name) \(arguments.joined(separator: " ")): \(words)")
    }
    return output
  }

  @discardableResult static func ip(_ arguments: [String], input: String? = nil) throws -> String {
    try run("ip", arguments, input: input)
  }
}

/// Numbers that make names unique within this process.
enum Counter {
  private static let last = Atomic<Int>(0)
  static func next() -> Int { last.add(1, ordering: .relaxed).newValue }
}
