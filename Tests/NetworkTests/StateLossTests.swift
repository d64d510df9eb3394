import Dataplane
import Foundation
import Gateway
import Testing

@testable import Lab

extension NetworkTests {
  /// What a gateway with manual keys does whose records are not what they were, seen from the wire: no sequence number
  /// comes twice, and no packet is accepted twice.
  @Suite(.enabled(if: Program.exists, "needs the program culvert")) struct StateLossTests {
    /// Two gateways that are processes, with somebody in between who keeps what passes.
    private final class Pair: Sendable {
      let network: Network
      let interceptor: Interceptor
      let a: GatewaySite
      let b: GatewaySite

      init() async throws {
        network = try await blocking { try Network(Interceptor.topology) }
        interceptor = try Interceptor(network)
        let secret = try await GatewaySite.makeSecret()
        a = try GatewaySite(.a, in: network["a"], keys: .manual(secret))
        b = try GatewaySite(.b, in: network["b"], keys: .manual(secret))
        for (site, partner) in [(a, "192.0.2.254"), (b, "198.51.100.254")] {
          let text = try String(contentsOfFile: site.file, encoding: .utf8)
          try site.directory.write(
            "\(site.side).yaml", text.replacing("address: \(site.side.other.outer4)", with: "address: \(partner)"))
        }
      }

      deinit { network.remove() }

      var pings: Pings { Pings(from: network["a"], to: Side.b.inner4, source: Side.a.inner4) }

      func stop(_ gateway: ProcessHandle, _ signal: Int32 = SIGTERM) async throws {
        gateway.signal(signal)
        _ = try await blocking { try gateway.wait(timeout: 10) }
      }

      /// SPI and sequence number of every ESP packet from a, in order.
      var sealedByA: [[UInt8]] {
        interceptor.passed(from: .a).filter { $0.count > 8 && $0[0..<4] != [0, 0, 0, 0] }.map { Array($0.prefix(8)) }
      }

      func expectNoRepeatedNumber(sourceLocation: SourceLocation = #_sourceLocation) {
        let sealed = sealedByA
        #expect(sealed.count >= 7, sourceLocation: sourceLocation)
        #expect(Set(sealed).count == sealed.count, sourceLocation: sourceLocation)
      }
    }

    /// The directory is removed, or an older copy is put in its place.
    @Test(.timeLimit(.minutes(1)), arguments: [true, false]) func aLostDirectoryRepeatsNoNumber(
      restores: Bool
    ) async throws {
      let pair = try await Pair()
      let b = try await pair.b.start()
      defer { b.terminate() }
      let state = "\(pair.a.directory.path)/state"
      var a = try await pair.a.start()
      try await pair.pings.expectAnswers([0, 56])
      try await pair.stop(a)
      try FileManager.default.copyItem(atPath: state, toPath: state + ".backup")
      a = try await pair.a.start()
      try await pair.pings.expectAnswers([0, 56, 500])
      try await pair.stop(a)
      try FileManager.default.removeItem(atPath: state)
      if restores { try FileManager.default.moveItem(atPath: state + ".backup", toPath: state) }
      a = try await pair.a.start()
      defer { a.terminate() }
      #expect(a.output.contains("numbers go on above"))
      try await pair.pings.expectAnswers([0, 56])
      pair.expectNoRepeatedNumber()
    }

    /// A second machine has the same files: the first one's peer knows, and the second goes on above.
    @Test(.timeLimit(.minutes(1))) func aMachineWithTheSameKeysIsToldByThePeer() async throws {
      let pair = try await Pair()
      let b = try await pair.b.start()
      defer { b.terminate() }
      var a = try await pair.a.start()
      try await pair.pings.expectAnswers([Int](repeating: 56, count: 200))
      try await pair.stop(a)
      // Another machine: nothing that this one knows.
      let ledger = pair.a.directory.path + "/keys"
      try FileManager.default.removeItem(atPath: "\(pair.a.directory.path)/state")
      try pair.a.directory.write("empty", "")
      try FileManager.default.createDirectory(atPath: ledger, withIntermediateDirectories: true)
      for name in ["send.key", "receive.key"] {
        let key = try String(contentsOfFile: "\(pair.a.directory.path)/\(name)", encoding: .utf8)
        try FileManager.default.removeItem(atPath: "\(pair.a.directory.path)/\(name)")
        try pair.a.directory.write(name, key)
      }
      let site = pair.a
      a = try await blocking {
        try ProcessHandle(
          "unshare",
          [
            "--mount", "sh", "-c", "mount --bind \(ledger) /run/culvert && exec \"$@\"", "sh", Program.path, "gateway",
            "--config", site.file,
          ], in: site.namespace)
      }
      defer { a.terminate() }
      let started = a
      try await blocking { try started.waitUntil("it ran", timeout: 20) { $0.output.contains("gateway runs") } }
      var impatient = pair.pings
      impatient.patience = 0.1
      let pings = impatient
      let isBack = try await eventually(within: 30) { try await pings.run([56]).isEmpty }
      #expect(isBack)
      #expect(a.output.contains("the peer refuses our sequence numbers") && b.output.contains("went back"))
    }

    /// What was received before a crash is refused after it, to the last packet.
    @Test(.timeLimit(.minutes(1))) func aCrashOpensTheDoorForNothing() async throws {
      let pair = try await Pair()
      let b = try await pair.b.start()
      var a = try await pair.a.start()
      let pings = pair.pings
      for _ in 0..<20 { try await pings.expectAnswers([56, 56, 56]) }
      try await pair.stop(a, SIGKILL)
      try await pair.stop(b, SIGKILL)
      let recorded = pair.interceptor.passed(from: .b).filter { $0.count > 8 && $0[0..<4] != [0, 0, 0, 0] }
      #expect(recorded.count >= 60)
      a = try await pair.a.start()
      defer { a.terminate() }
      for datagram in recorded { try pair.interceptor.send(datagram, to: .a) }
      let site = pair.a
      var inbound: Statistics.Association?
      _ = try await eventually(within: 10) {
        inbound = try await site.report().statistics.peers[0].associations.first { $0.direction == .inbound }
        return (inbound?.drops.reduce(0) { $0 + $1.packets } ?? 0) >= UInt64(recorded.count)
      }
      #expect(inbound?.drops.reduce(0) { $0 + $1.packets } == UInt64(recorded.count))
      #expect(inbound?.packets == 0)
    }
  }
}
