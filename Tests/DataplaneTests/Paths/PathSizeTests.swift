import PacketIO
import Testing

@testable import Dataplane

/// Each path has a path MTU of its own, which traffic finds there when it takes the path.
@Suite struct PathSizeTests {
  /// A peer with two paths for single packets, and what fits them.
  private struct Network: ~Copyable {
    static let overhead = 28
    var peer: Peer
    /// Bytes that each path takes; 0: nothing gets through.
    var limits: [Int]
    var now: UInt64 = 1_000_000_000
    private var number: UInt64 = 0

    static func path(_ path: Int) -> Path {
      Path(transport: UInt8(path), endpoint: Endpoint(address: IPAddress(v4: 0xC000_0202), port: 4500))
    }

    init(limits: [Int]) {
      self.limits = limits
      let paths = limits.indices.map { ConfiguredPath(name: "\($0)", path: Network.path($0)) }
      peer = Peer(paths: paths, now: MonotonicTime(nanoseconds: now))
      settle()
    }

    private mutating func settle() {
      peer.withSelection {
        $0.candidates.settle(
          everything: false, largestSealed: 1500 - Network.overhead, raiseInterval: 600_000_000_000
        ) { _ in Network.overhead }
      }
    }

    mutating func run(seconds: Int) {
      for _ in 0..<seconds * 10 {
        now += 100_000_000
        tick(MonotonicTime(nanoseconds: now))
      }
    }

    /// As a worker does it, with a partner that answers at once.
    private mutating func tick(_ time: MonotonicTime) {
      settle()
      var number = number
      func next() -> UInt64 {
        number += 1
        return number
      }
      var probes = peer.withSelection { $0.probeSize(.init(isActive: true, lastHeard: time), now: time, number: next) }
      probes += peer.withSelection { $0.poll(.init(isActive: true, lastHeard: time), now: time, number: next) }
      self.number = number
      for probe in probes where fits(probe.size + Network.overhead, probe.path) {
        peer.withSelection { $0.receive(ProbeReply(number: probe.message.number, seen: nil), now: time) }
      }
    }

    private func fits(_ size: Int, _ path: Path) -> Bool {
      let limit = limits[Int(path.transport)]
      return limit > 0 && size <= limit
    }

    var used: Int? { peer.path.map { Int($0.transport) } }
    func size(ofOther path: Int) -> Int? {
      peer.selection.candidates.first { Int($0.path.transport) == path }?.mtu?.current
    }
  }

  @Test(arguments: [1300, 1350, 1420, 1499])
  func eachPathKeepsItsOwn(narrow: Int) {
    var network = Network(limits: [1500, narrow])
    network.run(seconds: 20)
    #expect(network.used == 0 && network.peer.mtu?.current == 1500)
    // Found before traffic goes there.
    let found = network.size(ofOther: 1) ?? 0
    #expect(found <= narrow && found > narrow - PathMTU.precision - 1, "\(found)")

    network.limits[0] = 0
    network.peer.withSelection { $0.fail(Network.path(0), now: MonotonicTime(nanoseconds: network.now)) }
    // Nothing of the first path counts here: the packets that come are those of the second.
    for _ in 0..<5 {
      network.run(seconds: 1)
      if network.used == 1 { #expect(network.peer.mtu?.current == found) }
    }
    // The test's partner is heard all the time, so the first path has to be found deaf.
    network.run(seconds: 10)
    #expect(network.used == 1 && network.peer.mtu?.current == found)

    network.limits[0] = 1500
    network.run(seconds: 20)
    #expect(network.used == 0)
    #expect(network.peer.mtu?.current == 1500, "what was known of it")
    #expect(network.size(ofOther: 1) == found)
  }
}
