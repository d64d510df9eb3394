import Foundation
import Gateway
import Glibc
import Lab
import Testing

/// Two gateways, each in its situation, an identity relay or two, and a transfer that goes on while something happens.
final class Scene {
  let site: IdentityRelaySite
  let situations: [Situation]
  private(set) var relays: [ProcessHandle] = []
  let gateways: [ProcessHandle]
  /// From the one gateway to the other.
  let transfer: RunningTransfer

  /// Begins the transfer when both paths are what they should be.
  init(_ situations: [Situation], relays count: Int) async throws {
    site = try await IdentityRelaySite(relays: count, situations: situations)
    self.situations = situations
    for relay in site.relays { relays.append(try await site.start(relay)) }
    gateways = try await site.startBoth()
    let isFound = try await eventually(within: 60) { [site] in
      try await Situation.expect(site.kinds(), situations)
    }
    #expect(isFound, "\(gateways.map(\.output))")
    transfer = RunningTransfer(
      from: site.network["a"], to: site.network["b"], address: Side.b.inner4, seconds: 600, patience: 120)
    let hasBegun = await eventually(within: 30) { [transfer] in transfer.bytes > 1 << 20 }
    #expect(hasBegun)
  }

  func end() {
    for process in gateways + relays { process.terminate() }
    site.network.remove()
  }

  static func text(_ seconds: Double) -> String { String(format: "%.2f s", seconds) }

  // MARK: What happens

  /// Drops what the rule describes behind the translator of `a`, in both directions.
  /// - Returns: when.
  func block(_ rule: String) async throws -> Double {
    let began = monotonicSeconds()
    let translator = site.network["nat-a"]
    let table = "table ip cut { chain c { type filter hook forward priority -10; \(rule) drop; }; }"
    try await blocking { _ = try Tool.run("nft", ["-f", "-"], input: table, in: translator) }
    return began
  }

  func unblock() async throws -> Double {
    let translator = site.network["nat-a"]
    try await blocking { _ = try Tool.run("nft", ["delete", "table", "ip", "cut"], in: translator) }
    return monotonicSeconds()
  }

  /// - Returns: when.
  func killRelay() async throws -> Double {
    let killed = monotonicSeconds()
    let relay = relays.removeFirst()
    relay.signal(SIGKILL)
    _ = try await blocking { try relay.wait(timeout: 5) }
    return killed
  }

  func startRelay() async throws { relays.insert(try await site.start(site.relays[0]), at: 0) }

  // MARK: What comes of it

  /// Waits until both send by such packets, and says how long that took.
  /// - Parameter kinds: nil: by those that the transfer began with.
  func expect(
    _ kinds: Set<String>?, _ what: String, since began: Double, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    let areUsed = try await eventually(within: 60) {
      let used = try await site.kinds()
      guard let kinds else { return Situation.expect(used, situations) }
      return used.allSatisfy { $0.map { kinds.contains($0) } ?? false }
    }
    let took = monotonicSeconds() - began
    #expect(areUsed, "\(what): \(gateways.map(\.output))", sourceLocation: sourceLocation)
    try await flows("\(what) after \(Scene.text(took))", since: began, sourceLocation: sourceLocation)
  }

  /// Waits until bytes arrive, and says how long they did not.
  func flows(_ what: String, since began: Double, sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let before = transfer.bytes
    let areFlowing = await eventually(within: 60) { transfer.bytes > before + 256 << 10 }
    #expect(areFlowing, "\(gateways.map(\.output))", sourceLocation: sourceLocation)
    print("FIGURE: \(what), traffic stood for \(Scene.text(transfer.longestStall(since: began)))")
  }
}
