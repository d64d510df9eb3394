import CLinux
import Glibc
import Testing

/// A network namespace of its own for one test, with nothing but a loopback interface that is down.
///
/// Namespaces belong to threads, so the test's body runs on a thread made for it; with the thread the namespace
/// and all in it are gone, whatever happened.
enum PrivateNetwork {
  /// Why tests that need one are skipped; nil when they can run.
  static let missing: String? = {
    if geteuid() != 0 { return "needs root (network namespaces and TUN devices)" }
    if access("/dev/net/tun", R_OK | W_OK) != 0 { return "needs /dev/net/tun" }
    if shell("command -v ip && command -v ethtool").isEmpty { return "needs the tools ip and ethtool" }
    return nil
  }()

  static var isAvailable: Bool {
    if let missing { print("SKIPPED: TUN device tests: \(missing)") }
    return missing == nil
  }

  /// Runs `body` in a fresh namespace. Checks that fail on its thread are not seen by the testing library as this
  /// test's, so the body reports through `Checks`.
  static func run(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: @escaping @Sendable (inout Checks) throws -> Void
  ) async throws {
    let outcome: (Checks, (any Error)?) = await withCheckedContinuation { continuation in
      let work = Work {
        var checks = Checks()
        do {
          guard culvert_unshare(CLONE_NEWNET) == 0 else {
            throw Failure("unshare: \(String(cString: strerror(errno)))")
          }
          try body(&checks)
          continuation.resume(returning: (checks, nil))
        } catch {
          continuation.resume(returning: (checks, error))
        }
      }
      work.start()
    }
    for failure in outcome.0.failures { Issue.record("\(failure.message)", sourceLocation: failure.location) }
    if let error = outcome.1 { throw error }
  }

  /// Runs a command in the calling thread's namespaces; its output, both streams.
  @discardableResult static func shell(_ command: String) -> String {
    guard let pipe = popen("{ \(command)\n} 2>&1", "r") else { return "popen failed" }
    defer { pclose(pipe) }
    var output: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let got = fread(&buffer, 1, buffer.count, pipe)
      if got == 0 { break }
      output += buffer[..<got]
    }
    return String(decoding: output, as: UTF8.self)
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }

  private final class Work: Sendable {
    private let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }

    func start() {
      var thread = pthread_t()
      let context = Unmanaged.passRetained(self).toOpaque()
      let status = pthread_create(
        &thread, nil,
        { context in
          context.map { Unmanaged<Work>.fromOpaque($0).takeRetainedValue().body() }
          return nil
        }, context)
      precondition(status == 0, "no thread for a test")
      pthread_detach(thread)
    }
  }
}

/// What a test found wrong on its own thread.
struct Checks: Sendable {
  struct Failed: Sendable {
    let message: String
    let location: SourceLocation
  }
  fileprivate(set) var failures: [Failed] = []

  mutating func expect(
    _ condition: Bool, _ message: @autoclosure () -> String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    if !condition { failures.append(Failed(message: message(), location: sourceLocation)) }
  }

  mutating func equal<T: Equatable>(_ got: T, _ wanted: T, sourceLocation: SourceLocation = #_sourceLocation) {
    if got != wanted { failures.append(Failed(message: "got \(got), wanted \(wanted)", location: sourceLocation)) }
  }

  mutating func contains(_ text: String, _ part: String, sourceLocation: SourceLocation = #_sourceLocation) {
    if !text.contains(part) {
      failures.append(Failed(message: "no \"\(part)\" in:\n\(text)", location: sourceLocation))
    }
  }

  mutating func lacks(_ text: String, _ part: String, sourceLocation: SourceLocation = #_sourceLocation) {
    if text.contains(part) {
      failures.append(Failed(message: "\"\(part)\" found in:\n\(text)", location: sourceLocation))
    }
  }
}
