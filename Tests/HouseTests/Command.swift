import Foundation

/// A program and its arguments, looked up on the PATH.
struct Command {
  var arguments: [String]
  var environment: [String: String] = [:]

  init(_ arguments: [String], environment: [String: String] = [:]) {
    self.arguments = arguments
    self.environment = environment
  }

  /// Exit status, and standard output and error together.
  func run() async throws -> (status: Int32, output: String) {
    try await withCheckedThrowingContinuation { continuation in
      // Waiting would hold one of the few threads that all tests share.
      Thread.detachNewThread { continuation.resume(with: Result { try wait() }) }
    }
  }

  func runBlocking() { _ = try? wait() }

  private func wait() throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, output)
  }
}
