import ArgumentParser
import Dataplane
import Dispatch
import Glibc
import Lab
import PacketIO
import Transports

/// `vpnbench crowd-gateway`: a dataplane with many peers, which measures what they and their changes cost, and prints it.
/// A process of its own for each measurement, because memory that was once taken is not given back.
struct CrowdGatewayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "crowd-gateway", abstract: "What many peers cost in a dataplane; part of scale.", shouldDisplay: false)

  @Option(help: "Peers with a /32 each.") var peers: Int
  @Option(help: "Each has so many paths, 0 or 1.") var paths: Int
  @Option(help: "Changes of one peer that are measured.") var changes = 200

  func run() throws {
    let crowd = Crowd(peers: peers, hasPaths: paths > 0)
    let done = DispatchSemaphore(value: 0)
    let result = Outcome()
    Task {
      do { result.figures = try await crowd.measure(changes: changes) } catch { result.error = error }
      done.signal()
    }
    done.wait()
    if let error = result.error { throw error }
    for (name, value) in result.figures { print("\(name)=\(value)") }
  }

  /// Written by the task before the semaphore, read behind it.
  private final class Outcome: @unchecked Sendable {
    var figures: [(String, Double)] = []
    var error: (any Error)?
  }
}

/// The peers of a gateway, and what is done with them.
private struct Crowd {
  let peers: Int
  let hasPaths: Bool

  private func association(_ number: Int, _ direction: Int) -> SecurityAssociationConfiguration {
    let key =
      (0..<8).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) } + [UInt8](repeating: UInt8(direction), count: 12)
    return SecurityAssociationConfiguration(
      spi: UInt32(4096 + 2 * number + direction), cipher: .aes128GCM, key: KeyMaterial(key))
  }

  private func peer(_ number: Int) -> PeerConfiguration {
    // Nobody is there: what is sent goes nowhere.
    let path = Path(endpoint: Endpoint(address: IPAddress(v4: 0xC633_6400 | UInt32(number & 255)), port: 4500))
    return PeerConfiguration(
      name: "peer-\(number)", prefixes: [Prefix(IPAddress(v4: 0x0A00_0000 | UInt32(number)), length: 32)],
      path: hasPaths ? path : nil, inbound: [association(number, 1)], outbound: association(number, 0))
  }

  private var configuration: Configuration {
    var configuration = Configuration(
      interface: InterfaceConfiguration(
        source: .name("crowd"), addresses: [InterfaceAddress(IPAddress(v4: 0xAC1F_0001), prefixLength: 24)]),
      peers: (0..<peers).map(peer), name: "hub")
    if let route = Prefix("10.0.0.0/8") { configuration.interface.routes = [route] }
    if let local = Prefix("192.168.0.0/24") { configuration.localPrefixes = [local] }
    return configuration
  }

  func measure(changes: Int) async throws -> [(String, Double)] {
    var figures: [(String, Double)] = []
    let dataplane = try Dataplane(configuration, transports: [UDPTransport()])
    try await settle(0.5)
    figures.append(("resident", resident))
    // Whoever applies a whole configuration has one of his own, whose memory the process keeps.
    for _ in 0..<10 { try await dataplane.apply(configuration) }
    try await settle(0.5)
    let before = resident
    var times = Samples()
    for _ in 0..<100 {
      let same = configuration
      let begin = MonotonicTime.current()
      try await dataplane.apply(same)
      times.append(Double(MonotonicTime.current().nanoseconds(since: begin)) / 1e6)
    }
    figures.append(("apply", times.median))
    try await settle(0.5)
    let after = resident
    figures.append(("resident-after", after))
    figures.append(("growth", after - before))

    let idle = try await cpu { try await settle(3) } / 3
    figures.append(("idle", idle * 1e3))
    _ = dataplane.takeLongestTakeOver()
    let kinds: [(String, (Int) -> [ConfigurationChange])] = [
      (
        "rekey",
        { number in
          [
            .installInbound(association(peers + number, 1), peer: "peer-\(number % peers)"),
            .installOutbound(association(peers + number, 0), peer: "peer-\(number % peers)"),
          ]
        }
      ),
      ("add", { number in [.add(peer(2 * peers + changes + number))] }),
      ("remove", { number in [.remove(peer: "peer-\(2 * peers + changes + number)")] }),
      (
        "agree",
        { number in
          [.agree(AddressAgreement(isUnanswered: number.isMultiple(of: 2)), peer: "peer-\(number % peers)")]
        }
      ),
    ]
    for (name, change) in kinds {
      let begin = MonotonicTime.current()
      let used = try await cpu {
        for number in 0..<changes { try await dataplane.apply(change(number)) }
      }
      let seconds = Double(MonotonicTime.current().nanoseconds(since: begin)) / 1e9
      figures.append(("\(name)-cpu", max(used - idle * seconds, 0) / Double(changes) * 1e3))
      figures.append(("\(name)-turn", Double(dataplane.takeLongestTakeOver()) / 1e3))
    }
    let begin = MonotonicTime.current()
    for number in 0..<changes { _ = await dataplane.statistics(of: "peer-\(number % peers)") }
    figures.append(
      ("statistics", Double(MonotonicTime.current().nanoseconds(since: begin)) / 1e3 / Double(changes)))
    await dataplane.stop()
    return figures
  }

  private func settle(_ seconds: Double) async throws { try await Task.sleep(for: .seconds(seconds)) }

  /// Processor seconds of this process.
  private func cpu(_ body: () async throws -> Void) async throws -> Double {
    let before = used
    try await body()
    return used - before
  }

  private var used: Double { Double(clock()) / 1e6 }

  /// MiB.
  private var resident: Double {
    ProcFile.field("VmRSS:", of: "/proc/self/status").flatMap { Double($0) }.map { $0 / 1024 } ?? 0
  }
}
