import PacketIO
import Testing

@testable import Dataplane

/// Each road has a path MTU of its own, which traffic finds there when it takes the road.
@Suite struct RoadSizeTests {
  /// A peer with two roads for single packets, and what fits them.
  private struct Network: ~Copyable {
    static let overhead = 28
    var peer: Peer
    /// Bytes that each road takes; 0: nothing gets through.
    var limits: [Int]
    var now: UInt64 = 1_000_000_000
    private var number: UInt64 = 0

    static func path(_ road: Int) -> Path {
      Path(transport: UInt8(road), endpoint: Endpoint(address: IPAddress(v4: 0xC000_0202), port: 4500))
    }

    init(limits: [Int]) {
      self.limits = limits
      let roads = limits.indices.map { Road(name: "\($0)", path: Network.path($0)) }
      peer = Peer(roads: roads, now: MonotonicTime(nanoseconds: now))
      peer.makeLadder(roads, tieBreaker: 1, now: MonotonicTime(nanoseconds: now))
      settle()
    }

    private mutating func settle() {
      peer.settle(
        everything: false, largestSealed: 1500 - Network.overhead, raiseInterval: 600_000_000_000
      ) { _ in Network.overhead }
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
      let sizes = peer.withMTU {
        $0.poll(now: time, isActive: true) {
          number += 1
          return number
        }
      }
      if let sizes, let path = peer.path {
        for size in [sizes.0, sizes.1] {
          guard let size, fits(size.size, path) else { continue }
          _ = peer.withMTU { $0.acknowledge(size.number, now: time) }
        }
      }
      let probes = peer.withLadder {
        $0.poll(.init(isActive: true, lastHeard: time), now: time) {
          number += 1
          return number
        }
      }
      self.number = number
      for probe in probes ?? [] where fits(probe.size + Network.overhead, probe.path) {
        _ = peer.withLadder { $0.receive(ProbeReply(number: probe.message.number, seen: nil), now: time) }
      }
      peer.followLadder()
    }

    private func fits(_ size: Int, _ path: Path) -> Bool {
      let limit = limits[Int(path.transport)]
      return limit > 0 && size <= limit
    }

    var used: Int? { peer.path.map { Int($0.transport) } }
    func size(ofOther road: Int) -> Int? {
      peer.ladder?.rungs.first { Int($0.path.transport) == road }?.mtu?.current
    }
  }

  @Test(arguments: [1300, 1350, 1420, 1499])
  func eachRoadKeepsItsOwn(narrow: Int) {
    var network = Network(limits: [1500, narrow])
    network.run(seconds: 20)
    #expect(network.used == 0 && network.peer.mtu?.current == 1500)
    // Found before traffic goes there.
    let found = network.size(ofOther: 1) ?? 0
    #expect(found <= narrow && found > narrow - PathMTU.precision - 1, "\(found)")

    network.limits[0] = 0
    network.peer.withLadder { $0.fail(Network.path(0), now: MonotonicTime(nanoseconds: network.now)) }
    // Nothing of the first road counts here: the packets that come are those of the second.
    for _ in 0..<5 {
      network.run(seconds: 1)
      if network.used == 1 { #expect(network.peer.mtu?.current == found) }
    }
    // The test's partner is heard all the time, so the first road has to be found deaf.
    network.run(seconds: 10)
    #expect(network.used == 1 && network.peer.mtu?.current == found)

    network.limits[0] = 1500
    network.run(seconds: 20)
    #expect(network.used == 0)
    #expect(network.peer.mtu?.current == 1500, "what was known of it")
    #expect(network.size(ofOther: 1) == found)
  }
}
