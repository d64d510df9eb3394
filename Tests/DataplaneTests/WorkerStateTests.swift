import PacketIO
import TestSupport
import Testing

@testable import Dataplane

/// What several workers hold of one configuration.
@Suite struct WorkerStateTests {
  /// One worker's outbound half.
  final class Half {
    let number: Int
    let pool = BufferPool(count: 16)
    var tables: Snapshot
    private var registry: Registry
    private var pipeline: OutboundPipeline

    init(_ number: Int, of workers: Int, _ configuration: Configuration) {
      self.number = number
      registry = Registry(
        configuration, sealing: .by(CipherEngine.available[0]), workers: workers, now: .current())
      tables = Snapshot(registry.parts(of: number))
      tables.assumeAggregation()
      pipeline = OutboundPipeline(scratch: pool.bytes(pool.take()!), batchCapacity: 4)
    }

    func adopt(_ configuration: Configuration) {
      var limits = ConfigurationLimits.none
      limits.workers = tables.workers
      guard let draft = try? registry.draft(configuration, limits: limits) else { return }
      tables = registry.commit(draft, now: .current())[number].takeOver(tables)
      tables.assumeAggregation()
    }

    /// Seals a packet, or several that share one; the SPI and the IV of what comes of it. Nil: it is for worker 0 to
    /// seal.
    func seal(_ count: Int, ownIsLive: Bool) -> (spi: UInt32, iv: UInt64)? {
      let state = tables.peers[0].state
      state.value.usesOwnAssociation = ownIsLive
      let limit = Int32(SealedTrain.bytes)
      if number > 0 { state.value.take(ownIsLive ? .test : nil, sealedLimit: limit, trialLimit: limit) }
      let bytes = PacketSketch("10.1.0.1", "10.2.0.1", .udp(sourcePort: 1, destinationPort: 2)).bytes
      var batch = PacketBatch(capacity: count)
      for _ in 0..<count {
        let buffer = pool.take()!
        pool.bytes(buffer).copy(bytes, to: BufferPool.headroom)
        batch.append(
          Superpacket(buffer: buffer, offset: BufferPool.headroom, length: bytes.count, segmentSize: bytes.count))
      }
      var results = OutboundResults(buffers: 16, batchCapacity: count)
      pipeline.run(&batch, Turn(tables: tables, pool: pool, now: .current()), into: &results)
      if !results.judged.isEmpty {
        #expect(results.trains.count == 0 && results.judged.count == count)
        while let waiting = results.judged.popLast() { pool.release(waiting.buffer) }
        return nil
      }
      #expect(results.trains.count == 1 && results.trains[0].datagrams == 1)
      let sealed = results.trains[0].bytes(in: pool)
      let seal = (sealed.load32(0), sealed.load64(8))
      pool.release(results.trains[0].buffer)
      return seal
    }
  }

  private static func configuration(secret: UInt8, workers: Int) throws -> Configuration {
    func association(_ worker: Int?) throws -> SecurityAssociationConfiguration {
      let derived = StaticAssociations(
        secret: KeyMaterial([UInt8](repeating: secret, count: 32)), local: "a", remote: "b", cipher: .aes128GCM,
        worker: worker)
      return SecurityAssociationConfiguration(
        spi: derived.outbound.spi, cipher: .aes128GCM, key: derived.outbound.key)
    }
    return Configuration(
      interface: InterfaceConfiguration(source: .name("none")),
      peers: [
        PeerConfiguration(
          name: "b", prefixes: [Prefix("10.2.0.0/16")!], path: .test, outbound: try association(nil),
          workerOutbound: try (0..<workers).map { try association($0) }, aggregates: true)
      ])
  }

  /// Workers that seal in any order, by themselves or through worker 0, while keys change and come back: no IV is used
  /// twice under a key (invariant 1).
  @Test func noNonceRepeats() throws {
    let workers = 4
    let configurations = try (1...3).map { try Self.configuration(secret: $0, workers: workers) }
    var keys: [UInt32: KeyFingerprint] = [:]
    for peer in configurations.map({ $0.peers[0] }) {
      for association in peer.workerOutbound + [peer.outbound!] { keys[association.spi] = association.key.fingerprint }
    }
    #expect(keys.count == 15 && Set(keys.values).count == 15)
    let halves = (0..<workers).map { Half($0, of: workers, configurations[0]) }
    var random = SeededNumbers(seed: 51)
    var used: [KeyFingerprint: Set<UInt64>] = [:]
    var sealedElsewhere = 0
    for _ in 0..<3000 {
      let half = halves.randomElement(using: &random)!
      if Int.random(in: 0..<20, using: &random) == 0 {
        half.adopt(configurations.randomElement(using: &random)!)
        continue
      }
      guard let packet = half.seal(Int.random(in: 1...3, using: &random), ownIsLive: Bool.random(using: &random)) else {
        #expect(half.number > 0)
        sealedElsewhere += 1
        continue
      }
      let key = try #require(keys[packet.spi])
      #expect(used[key, default: []].insert(packet.iv).inserted, "worker \(half.number) repeats \(packet)")
      #expect(half.number == 0 || packet.spi & 15 == UInt32(half.number))
    }
    #expect(used.count == 15 && sealedElsewhere > 500)
  }

  /// What finds no room on its way to another worker is counted as the packets that it is.
  @Test func whatCannotBeHandedOverIsCounted() {
    let pool = BufferPool(count: 2)
    var outbound = OutboundPipeline(scratch: pool.bytes(0), batchCapacity: 1)
    let packet = TunPacket(
      PacketSketch(
        "10.1.0.1", "10.2.0.1", .udp(sourcePort: 1, destinationPort: 2), payload: [UInt8](repeating: 0, count: 35)),
      segmentSize: 10)
    pool.bytes(1).copy(packet.bytes, to: BufferPool.headroom)
    let superpacket = Superpacket(
      buffer: 1, offset: BufferPool.headroom, length: packet.bytes.count, segmentSize: 10, offload: packet.offload)
    outbound.refuse(superpacket, superpacket.bytes(in: pool), .handOverFull)
    #expect(outbound.counters.arrived == TrafficCount(packets: 4, bytes: 4 * 28 + 35))
    #expect(outbound.counters.dropped(.handOverFull) == 4)
    var inbound = InboundPipeline(capacity: 128, offloads: [])
    inbound.refuse(packets: 5, bytes: 500, .handOverFull)
    #expect(inbound.counters.arrived.packets == 5 && inbound.counters.dropped(.handOverFull) == 5)
  }

  /// An association is there for one worker only: whose number the SPI ends with.
  @Test func eachInboundAssociationHasOneHolder() throws {
    var configuration = try Self.configuration(secret: 1, workers: 0)
    let sent = try Self.configuration(secret: 2, workers: 16).peers[0]
    configuration.peers[0].inbound = sent.workerOutbound + [sent.outbound!]
    for workers in [1, 2, 4, 16] {
      let tables = (0..<workers).map {
        Snapshot(configuration, sealing: .leftOut, now: .current(), worker: $0, of: workers)
      }
      for association in configuration.peers[0].inbound {
        let holders = tables.filter { $0.association(association.spi) != nil }.map(\.worker)
        #expect(holders == [Int(association.spi) % workers])
      }
    }
  }

  /// Asked often at first and seldom later; used from the first answer until four questions have none.
  @Test func associationsAreUsedWhileTheyAreAnswered() {
    var check = AssociationCheck()
    var now = MonotonicTime(nanoseconds: 1_000_000_000)
    var asked: [UInt64] = []
    func run(seconds: Int, isActive: Bool = true, answers: Bool) {
      for _ in 0..<seconds * 10 {
        if check.poll(isActive: isActive, now: now) {
          asked.append(now.nanoseconds / 100_000_000)
          if answers { check.answer() }
        }
        now = now.adding(nanoseconds: 100_000_000)
      }
    }
    run(seconds: 100, answers: false)
    #expect(!check.isLive && (5...12).contains(asked.count), "\(asked)")
    asked = []
    run(seconds: 40, answers: true)
    #expect(check.isLive && asked.count > 15)
    asked = []
    run(seconds: 100, isActive: false, answers: false)
    #expect(check.isLive && asked.isEmpty, "nobody asks while there is nothing to send")
    run(seconds: 2, answers: false)
    #expect(check.isLive)
    run(seconds: 1, answers: false)
    #expect(!check.isLive)
  }
}
