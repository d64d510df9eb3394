import Foundation
import Settings
import Testing

@testable import Dataplane
@testable import Gateway

/// A directory of its own for one test, with keys in it; gone when the test is.
final class Workshop {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "culvert-test-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { "\(path)/\(name)" }

  @discardableResult
  func write(_ name: String, _ text: String, mode: Int = 0o600) throws -> String {
    try Data(text.utf8).write(to: URL(fileURLWithPath: file(name)))
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file(name))
    return file(name)
  }

  func read(_ name: String) throws -> String { try String(contentsOfFile: file(name), encoding: .utf8) }

  func mode(_ name: String) throws -> Int {
    try #require(FileManager.default.attributesOfItem(atPath: file(name))[.posixPermissions] as? Int)
  }

  func names() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }

  /// `count` bytes that differ from those of every other seed.
  @discardableResult
  func key(_ name: String, _ count: Int = 20, seed: Int) throws -> String {
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: seed * 31 + $0) }
    return try write(name, "# test\n" + bytes.map(hexadecimal).joined() + "\n")
  }

  /// The keys that `Workshop.good` names, and some for other ends.
  func usualKeys() throws {
    try key("ab.key", seed: 1)
    try key("ba.key", seed: 2)
    try key("ac.key", 36, seed: 3)
    try key("ca.key", 36, seed: 4)
    try key("alpha-delta.secret", 32, seed: 5)
  }

  func parse(_ text: String) throws(FileProblems) -> GatewayPlan {
    try GatewayFile.plan(text: text, path: file("alpha.yaml"))
  }

  /// A file with one peer, with these settings of its own and these in front.
  static func onePeer(_ settings: String, top: String = "") -> String {
    """
    name: alpha
    \(top)
    peers:
      - name: beta
        prefixes: [10.2.0.0/24]
        send: {spi: 0x1001, key: ab.key}
        receive: {spi: 0x1002, key: ba.key}
        \(settings)
    """
  }

  /// Every setting, in every form.
  static let good = """
    name: alpha
    listen: "[2001:db8::1]:4501"
    interface:
      name: culvert7
      addresses: [10.1.0.1/24, "fd00:1::1/64"]
      mtu: 1380
      routes: [10.99.0.0/16]
    control: alpha.sock
    state: /elsewhere/state
    engine: openssl
    peers:
      - name: beta
        address: "[2001:db8::2]:4502"
        prefixes: [10.2.0.0/24, "fd00:2::/64"]
        send:    { spi: 0x1001, key: ab.key }
        receive: { spi: 4098, key: ba.key }
        extended-sequence-numbers: false
        implicit-iv: yes
        replay-window: 64
        keep-alive: 0.5
      - name: gamma
        prefixes: 10.3.0.0/24
        cipher: chacha20-poly1305
        send:
          spi: 0x1001
          key: ac.key
        receive:
          spi: 0x1003
          key: ca.key
      - name: delta
        prefixes:
          - 10.4.0.0/24
          - 10.99.0.0/16
        secret: alpha-delta.secret
        access:
          - 10.1.0.5
          - { hosts: 10.1.0.16/28, direction: inbound, protocol: tcp, ports: 8000-8100 }
          - { hosts: "fd00:1::/64", direction: outbound, ports: any }
    firewall:
      mode: on
      log-refusals: true
      flows: 1000
      pending-flows: 500
      rules:
        - number: 20
          name: web
          protocol: tcp
          direction: inbound
          source: 10.2.0.0/24
          destination: 10.1.0.10
          destination-ports: 443
          action: allow
          log: yes
        - { number: 10, protocol: 47, source: any, action: deny, enabled: no }
        - { number: 30, protocol: udp, source-ports: 1000-2000, destination: "fd00:2::/64", action: deny }
        - { number: 40, protocol: icmp, direction: both, action: allow }
    """
}

/// Random numbers from a seed, the same on every machine.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

  // SplitMix64.
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// Runs what blocks on a thread of its own: the tasks that would answer it need the pool's.
func blocking<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
  try await withCheckedThrowingContinuation { continuation in
    Thread { continuation.resume(with: Result { try work() }) }.start()
  }
}
