import Lab
import Testing

/// All tests in which packets cross network namespaces. One after the other, because they share the processors, and
/// what is measured in one would be disturbed by the next.
@Suite(.serialized, .enabled(if: canMakeNamespaces, "needs root and iproute2: see SKIPPED above"))
enum NetworkTests {}

/// Whether network namespaces can be made here; says so when not.
let canMakeNamespaces: Bool = {
  guard let obstacle = Namespace.obstacle else {
    // What earlier runs left when they were killed.
    Cleanup.reclaimAbandoned()
    return true
  }
  print("SKIPPED: all tests in network namespaces: \(obstacle)")
  return false
}()

/// Runs what blocks on a thread of its own: the pool that runs tests has few.
func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
  try await LabThread(body).value
}

/// Waits until `condition` holds.
/// - Returns: whether it did within `seconds`.
func eventually(within seconds: Double = 30, _ condition: () async throws -> Bool) async rethrows -> Bool {
  let limit = monotonicSeconds() + seconds
  while true {
    if try await condition() { return true }
    if monotonicSeconds() > limit { return false }
    try? await Task.sleep(for: .milliseconds(20))
  }
}
