public import Glibc
import Synchronization

/// A program that runs in a namespace, with what it prints and what it uses.
///
/// It gets a process group of its own, so that Ctrl-C reaches it through `Cleanup` only, in order.
public final class ProcessHandle: Sendable {
  public enum Status: Sendable, Equatable {
    case exited(Int32)
    case killed(signal: Int32)
  }

  /// What a process has used since it began.
  public struct Usage: Sendable, Equatable {
    /// User and system time of all its threads, seconds.
    public var cpuSeconds: Double
    /// The most memory it held since it began, or since `forgetPeak`, bytes (VmHWM).
    public var peakResident: Int
    /// What of its memory is its own at the moment, bytes: neither a file's pages nor shared (RssAnon).
    public var privateResident: Int
  }

  public let program: String
  public let pid: pid_t

  private struct State {
    var status: Status?
    var output: [UInt8] = []
    var reader: LabThread<Void>?
    var token: Cleanup.Token?
  }
  private let state: Mutex<State>
  /// What is kept of the output, bytes: the beginning.
  private static let outputLimit = 1 << 20

  /// - Parameters:
  ///   - program: a name to look for, or a path.
  ///   - environment: set beside what this process has.
  ///   - input: what it finds on its standard input; nil: nothing.
  ///   - isRegistered: whether `Cleanup` ends it; only for programs that may outlive the call that started them.
  public init(
    _ program: String, _ arguments: [String], environment: [(String, String)] = [], in namespace: Namespace? = nil,
    input: String? = nil, isRegistered: Bool = true
  ) throws {
    guard let path = Tool.path(program) else { throw LabError("the program \(program) is not installed") }
    self.program = program
    let spawn: @Sendable () throws -> Spawned = {
      // A child begins in the namespace of the thread that makes it.
      try LabThread(in: namespace) { try Spawned(path, arguments, environment, hasInput: input != nil) }.join()
    }
    var token: Cleanup.Token? = nil
    let child: Spawned
    if isRegistered {
      (child, token) = try Cleanup.making(spawn) { child in
        kill(-child.pid, SIGTERM)
        for _ in 0..<300 where kill(child.pid, 0) == 0 {
          if System.reap(child.pid) != nil { return }
          pause(seconds: 0.01)
        }
        kill(-child.pid, SIGKILL)
      }
    } else {
      child = try spawn()
    }
    pid = child.pid
    state = Mutex(State(token: token))
    if let input { child.give(input) }
    let reader = LabThread<Void>(name: "output") { [weak self] in
      child.readOutput { bytes in
        self?.state.withLock {
          $0.output.append(contentsOf: bytes.prefix(ProcessHandle.outputLimit - $0.output.count))
        }
      }
    }
    state.withLock { $0.reader = reader }
  }

  deinit { terminate() }

  /// Standard output and standard error so far, as they came.
  public var output: String { String(decoding: state.withLock { $0.output }, as: UTF8.self) }

  /// The status once it has ended; nil while it runs.
  public var status: Status? {
    let (status, reader, token) = state.withLock { state -> (Status?, LabThread<Void>?, Cleanup.Token?) in
      if let status = state.status { return (status, nil, nil) }
      guard let word = System.reap(pid) else { return (nil, nil, nil) }
      let signal = word & 0x7F
      state.status = signal == 0 ? .exited((word >> 8) & 0xFF) : .killed(signal: signal)
      defer { (state.reader, state.token) = (nil, nil) }
      return (state.status, state.reader, state.token)
    }
    if let token { Cleanup.forget(token) }
    // The last words of the dead; a grandchild that holds the pipe must not keep us.
    if let reader {
      let limit = monotonicSeconds() + 1
      while reader.finished == nil, monotonicSeconds() < limit { pause(seconds: 0.001) }
    }
    return status
  }

  /// Waits for the end of the process.
  /// - Throws: when `timeout` seconds were not enough.
  public func wait(timeout: Double) throws -> Status {
    var nap = 0.0005
    let limit = monotonicSeconds() + timeout
    while true {
      if let status { return status }
      if monotonicSeconds() > limit { throw LabError("\(program) did not end within \(Int(timeout)) s") }
      pause(seconds: nap)
      nap = min(nap * 1.5, 0.02)
    }
  }

  /// Waits until `condition` holds.
  /// - Throws: when the process ends first, with the last line it printed, or when `timeout` seconds have passed.
  public func waitUntil(_ what: String, timeout: Double = 10, _ condition: (ProcessHandle) throws -> Bool) throws {
    let limit = monotonicSeconds() + timeout
    while try !condition(self) {
      if let status {
        throw LabError("\(program) ended (\(status)) before \(what): \(lastLine ?? "it printed nothing")")
      }
      if monotonicSeconds() > limit {
        throw LabError("\(program): not \(what) after \(Int(timeout)) s; last it said: \(lastLine ?? "nothing")")
      }
      pause(seconds: 0.01)
    }
  }

  /// The last line of the output that is not empty.
  public var lastLine: String? { output.split(separator: "\n").last.map(String.init) }

  public func signal(_ number: Int32) { if status == nil { kill(pid, number) } }

  /// Ends the process and what it started: politely, and after `grace` seconds not. Returns its status.
  @discardableResult public func terminate(grace: Double = 5) -> Status {
    if let status { return status }
    kill(-pid, SIGTERM)
    if let status = try? wait(timeout: grace) { return status }
    kill(-pid, SIGKILL)
    return (try? wait(timeout: 5)) ?? .killed(signal: SIGKILL)
  }

  /// Lets `Usage.peakResident` begin with what it holds now (proc(5), clear_refs).
  public func forgetPeak() { _ = System.writeFile("/proc/\(pid)/clear_refs", "5") }

  /// What it has used until now; nil once it has ended.
  public var usage: Usage? {
    guard let seconds = System.cpuSeconds(pid) else { return nil }
    let peak = ProcFile.field("VmHWM:", of: "/proc/\(pid)/status").flatMap { Int($0) } ?? 0
    let own = ProcFile.field("RssAnon:", of: "/proc/\(pid)/status").flatMap { Int($0) } ?? 0
    return Usage(cpuSeconds: seconds, peakResident: peak * 1024, privateResident: own * 1024)
  }
}
