import Glibc
import Testing

@testable import Lab

@Suite struct SamplesTests {
  @Test func percentilesAreNearestRanks() {
    let samples = Samples((1...100).map(Double.init).shuffled())
    #expect(samples.percentile(0.5) == 50)
    #expect(samples.percentile(0.99) == 99)
    #expect(samples.percentile(1) == 100)
    #expect(samples.percentile(0) == 1)
    #expect(samples.median == 50.5)
    #expect(Samples([]).percentile(0.5) == 0)
  }

  @Test func spreadIgnoresOneOutlier() {
    #expect(Samples([10, 10, 10, 10, 1000]).spread == 0)
    #expect(abs(Samples([9, 10, 11]).spread - 0.14826) < 1e-9)
  }
}

@Suite struct StreamDigestTests {
  private static func bytes(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SplitMix64(seed: seed)
    return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  }

  @Test func piecesDoNotMatter() {
    let bytes = StreamDigestTests.bytes(10_000, seed: 1)
    var whole = StreamDigest()
    whole.update(bytes)
    var random = SplitMix64(seed: 2)
    for _ in 0..<50 {
      var pieces = StreamDigest()
      var rest = bytes[...]
      while !rest.isEmpty {
        let n = min(rest.count, Int.random(in: 0...200, using: &random))
        pieces.update(Array(rest.prefix(n)))
        rest = rest.dropFirst(n)
      }
      #expect(pieces.value == whole.value)
      #expect(pieces.count == 10_000)
    }
  }

  @Test func everyChangeShows() {
    let bytes = StreamDigestTests.bytes(257, seed: 3)
    func digest(_ bytes: [UInt8]) -> UInt64 {
      var digest = StreamDigest()
      digest.update(bytes)
      return digest.value
    }
    var seen: Set<UInt64> = [digest(bytes)]
    for index in bytes.indices {
      var altered = bytes
      altered[index] ^= 1
      #expect(seen.insert(digest(altered)).inserted, "bit flip at \(index)")
      #expect(seen.insert(digest(Array(bytes[..<index]))).inserted, "cut at \(index)")
    }
    // Two neighbouring blocks in the wrong order.
    #expect(seen.insert(digest(Array(bytes[32..<64] + bytes[..<32] + bytes[64...]))).inserted)
  }
}

@Suite struct SequenceTallyTests {
  @Test func agreesWithASet() {
    var random = SplitMix64(seed: 4)
    for _ in 0..<100 {
      let capacity = Int.random(in: 1...300, using: &random)
      var tally = SequenceTally(capacity: capacity)
      var seen: Set<UInt64> = []
      var (duplicates, late, strange): (UInt64, UInt64, UInt64) = (0, 0, 0)
      for _ in 0..<400 {
        let number = UInt64.random(in: 0..<UInt64(capacity + 10), using: &random)
        tally.take(number)
        if number >= UInt64(capacity) {
          strange += 1
        } else if seen.contains(number) {
          duplicates += 1
        } else {
          if let highest = seen.max(), number < highest { late += 1 }
          seen.insert(number)
        }
      }
      #expect(tally.received == UInt64(seen.count))
      #expect((tally.duplicates, tally.late, tally.strange) == (duplicates, late, strange))
    }
  }
}

@Suite struct RateSearchTests {
  /// A path that drops what exceeds `limit`, and a sender that does not manage more than `most`.
  private static func path(limit: Double, most: Double, probes: inout Int) -> (Double?) -> RateSearch.Probe {
    { rate in
      let sent = min(rate ?? most, most)
      let received = min(sent, limit)
      return RateSearch.Probe(loss: (sent - received) / sent, received: received, sent: sent)
    }
  }

  @Test(arguments: [1_000.0, 33_000, 250_000, 999_999])
  func findsTheLimit(limit: Double) {
    var probes = 0
    let path = RateSearchTests.path(limit: limit, most: 1_000_000, probes: &probes)
    let result = RateSearch().run { rate in
      probes += 1
      return path(rate)
    }
    #expect(result.bounded <= limit && result.bounded > 0.93 * limit)
    #expect(result.lossless <= limit && result.lossless > 0.93 * limit)
    #expect(probes < 30)
  }

  @Test func aSlowSenderIsTheLimit() {
    var probes = 0
    let path = RateSearchTests.path(limit: 2_000_000, most: 1_000_000, probes: &probes)
    let result = RateSearch().run(path)
    #expect(result == RateSearch.Result(bounded: 1_000_000, lossless: 1_000_000))
  }

  @Test func overloadThatCollapsesIsSearchedFromBelow() {
    // Above 100 000 almost nothing gets through; flat out hides the limit.
    let result = RateSearch().run { rate in
      let sent = min(rate ?? 1_000_000, 1_000_000)
      let received = sent <= 100_000 ? sent : 5_000
      return RateSearch.Probe(loss: 1 - received / sent, received: received, sent: sent)
    }
    #expect(result.lossless > 93_000 && result.lossless <= 100_000)
  }

  @Test func aPathThatCarriesNothing() {
    let result = RateSearch().run { _ in RateSearch.Probe(loss: 1, received: 0, sent: 1_000) }
    #expect(result == RateSearch.Result(bounded: 0, lossless: 0))
  }
}

@Suite struct WireTapTests {
  private func frame(type: UInt16, _ ip: [UInt8]) -> [UInt8] {
    [UInt8](repeating: 2, count: 12) + [UInt8(type >> 8), UInt8(type & 255)] + ip
  }
  private func v4UDP(_ payload: [UInt8], port: UInt16 = 4500) -> [UInt8] {
    let udp: [UInt8] = [0x30, 0x39, UInt8(port >> 8), UInt8(port & 255), 0, UInt8(8 + payload.count), 0, 0]
    return frame(type: 0x0800, [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2] + udp + payload)
  }

  @Test func kindsAreToldApart() {
    #expect(WireTap.classify(v4UDP([0, 0, 1, 0, 0, 0, 0, 1, 9, 9]), 4500) == .esp)
    #expect(WireTap.classify(v4UDP([0, 0, 0, 0, 0, 0, 0, 1, 9, 9]), 4500) == .keyExchange)
    #expect(WireTap.classify(v4UDP([0xFF]), 4500) == .keepAlive)
    #expect(WireTap.classify(v4UDP([0, 0, 1, 0, 0, 0, 0, 1], port: 53), 4500) == .other)
    #expect(WireTap.classify(frame(type: 0x0806, [0, 1]), 4500) == .neighbours)
    // No prefix of a frame may be read beyond its end.
    for full in [v4UDP([0, 0, 1, 0, 0, 0, 0, 1]), frame(type: 0x86DD, [UInt8](repeating: 17, count: 50))] {
      for n in 0...full.count { _ = WireTap.classify(Array(full[..<n]), 4500) }
    }
  }

  @Test func textIsFound() {
    var record = WireTap.Record()
    WireTap.take(v4UDP(Array("..secret..".utf8)), wireLength: 60, 4500, Array("secret".utf8), &record)
    WireTap.take(v4UDP(Array("..secre..".utf8)), wireLength: 60, 4500, Array("secret".utf8), &record)
    #expect(record.revealing == 1)
    #expect(record.frames[.esp] == 2)
  }
}

extension NetworkTests {
  @Suite struct LabNetworkTests {
    private func names() throws -> Set<String> {
      Set(try Tool.run("ip", ["netns", "list"]).split(separator: "\n").map { String($0.split(separator: " ")[0]) })
    }

    @Test func aNetworkIsRemovedWithoutTrace() throws {
      let network = try Network(.routed)
      let made = network.topology.nodes.map { network[$0].name }
      #expect(try names().isSuperset(of: made))
      network.remove()
      #expect(try names().isDisjoint(with: made))
      network.remove()
    }

    @Test func aFailureRemovesWhatWasBuilt() throws {
      let before = try names()
      var broken = Topology.direct
      broken.wires[0].b.addresses = ["nonsense"]
      #expect(throws: LabError.self) { _ = try Network(broken) }
      #expect(try names().filter { $0.contains("\(getpid())") } == before.filter { $0.contains("\(getpid())") })
    }

    @Test func leftoversOfDeadProcessesAreReclaimed() throws {
      // The number of a process that has ended.
      let process = try ProcessHandle("true", [])
      let pid = process.pid
      #expect(try process.wait(timeout: 5) == .exited(0))
      let abandoned = "culvert-\(pid)-1-x"
      try Tool.run("ip", ["netns", "add", abandoned])
      let own = try Namespace("kept")
      Cleanup.reclaimAbandoned()
      #expect(try !names().contains(abandoned))
      #expect(try names().contains(own.name))
    }

    @Test(arguments: [("192.0.2.2", 1), ("2001:db8::2", 3)])
    func bulkTransferArrivesIntact(address: String, streams: Int) throws {
      let network = try Network(.direct)
      defer { network.remove() }
      var transfer = BulkTransfer(from: network["a"], to: network["b"], address: address, amount: .bytes(10_000_001))
      transfer.verifies = true
      transfer.streams = streams
      let result = try transfer.run()
      #expect(result.bytes == 10_000_001)
      #expect(result.digests.count == streams)
      #expect(result.isIntact)
    }

    @Test func bulkTransferCrossesRouters() throws {
      let network = try Network(.routed)
      defer { network.remove() }
      for (node, prefix, via) in [
        ("gateway-a", "10.2.0.0/24", "192.0.2.2"), ("gateway-b", "10.1.0.0/24", "192.0.2.1"),
      ] {
        try network[node].ip(["route add \(prefix) via \(via)"])
      }
      var transfer = BulkTransfer(
        from: network["host-a"], to: network["host-b"], address: "10.2.0.2", amount: .seconds(0.4))
      transfer.warmUp = 0.1
      var reports = 0
      transfer.reportInterval = 0.1
      let result = try transfer.run(progress: { _ in reports += 1 })
      #expect(result.bytes > 1_000_000)
      #expect(abs(result.seconds - 0.4) < 0.2)
      #expect(reports >= 3)
    }

    @Test func aBrokenPathIsReportedInTime() throws {
      let network = try Network(.direct)
      defer { network.remove() }
      let a = network["a"]
      let breaker = LabThread<Void> {
        pause(seconds: 0.3)
        try a.ip(["link set wire down"])
      }
      var transfer = BulkTransfer(from: a, to: network["b"], address: "192.0.2.2", amount: .seconds(60))
      transfer.patience = 1
      let begin = monotonicSeconds()
      #expect(throws: LabError.self) { try transfer.run() }
      #expect(monotonicSeconds() - begin < 10)
      try breaker.join()
    }

    @Test func floodCountsWhatIsLost() throws {
      let network = try Network(.direct)
      defer { network.remove() }
      var flood = DatagramFlood(from: network["a"], to: network["b"], address: "192.0.2.2", size: 64, rate: 2_000)
      let good = try flood.run()
      #expect(good.loss == 0 && good.duplicates == 0)
      #expect(abs(good.sentRate - 2_000) < 300)
      // Half of the way there the wire is cut.
      let a = network["a"]
      flood.seconds = 1
      let cutter = LabThread<Void> {
        pause(seconds: 0.5)
        try a.ip(["link set wire down"])
      }
      let bad = try? flood.run()
      try cutter.join()
      if let bad { #expect(bad.loss > 0.1 && bad.loss < 0.9) }
    }

    @Test func aStrangersDatagramsDifferWhereTheyShould() throws {
      let network = try Network(.direct)
      defer { network.remove() }
      let receiver = try network["b"].inside { () throws -> Socket in
        let socket = try Socket(.datagram, isV6: false)
        try socket.bind(Endpoint("192.0.2.2", port: 0))
        try socket.setTimeout(10)
        return socket
      }
      let bytes = Array(UInt8(0)..<40)
      var flood = StrangerFlood(from: network["a"], to: "192.0.2.2", port: receiver.port, bytes)
      flood.fresh = [8]
      flood.source = ("192.0.2.1", 4777)
      let sending = flood.start()
      let buffer = LabBuffer(count: 64)
      var words: Set<UInt64> = []
      for _ in 0..<100 {
        #expect(receiver.receive(buffer) == 40)
        words.insert(buffer.load64(8))
        #expect(buffer.bytes(0, 8) == Array(bytes[..<8]) && buffer.bytes(16, 24) == Array(bytes[16...]))
      }
      #expect(try sending.finish().sent >= 100 && words.count == 100)
    }

    @Test func segmentedFloodArrives() throws {
      let network = try Network(.direct)
      defer { network.remove() }
      var flood = DatagramFlood(from: network["a"], to: network["b"], address: "2001:db8::2", size: 1000, rate: 20_000)
      flood.segmentsPerSend = 20
      let result = try flood.run()
      #expect(result.sent >= 5_000)
      #expect(result.loss == 0)
    }

    @Test(arguments: [Echo.Kind.icmp, .udp], ["192.0.2.2", "2001:db8::2"])
    func echoesReturn(kind: Echo.Kind, address: String) throws {
      let network = try Network(.direct)
      defer { network.remove() }
      var echo = Echo(from: network["a"], to: network["b"], address: address)
      echo.kind = kind
      echo.count = 20
      let result = try echo.run()
      #expect(result.lost == 0)
      #expect(result.times.count == 20 && result.times.allSatisfy { $0 > 0 && $0 < 1 })
    }

    @Test func theTapSeesTheWire() throws {
      let network = try Network(.direct)
      defer { network.remove() }
      let tap = try WireTap(network["a"], interface: "wire", lookingFor: "")
      var echo = Echo(from: network["a"], to: network["b"], address: "192.0.2.2")
      echo.count = 5
      _ = try echo.run()
      let record = try tap.finish()
      #expect(record.frames[.other] == 10)
      #expect(record.frames[.esp] == nil)
    }

    @Test func processesRunInsideAndAreMeasured() throws {
      let network = try Network(.direct)
      defer { network.remove() }
      let shell = try ProcessHandle(
        "sh", ["-c", "ip -o link show; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo ready; sleep 60"],
        in: network["a"])
      try shell.waitUntil("ready") { $0.output.contains("ready") }
      #expect(shell.output.contains("wire"))
      let usage = try #require(shell.usage)
      #expect(usage.cpuSeconds > 0.005)
      #expect(usage.peakResident > 100_000)
      #expect(shell.terminate() == .killed(signal: SIGTERM))
      #expect(shell.usage == nil)
    }

    @Test func aProcessThatFailsSaysWhy() throws {
      let process = try ProcessHandle("sh", ["-c", "echo the reason; exit 3"])
      #expect(throws: LabError("sh ended (exited(3)) before it was ready: the reason")) {
        try process.waitUntil("it was ready") { _ in false }
      }
    }
  }
}
