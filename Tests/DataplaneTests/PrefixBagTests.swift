import Glibc
import PacketIO
import Testing

@testable import Dataplane

@Suite struct PrefixBagTests {
  /// Against a list that is looked through: prefixes of both families, inside each other, several times.
  @Test(arguments: 0..<20 as Range<UInt64>) func answersAsAListDoes(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    var list: [Prefix] = []
    var bag = PrefixBag()
    func some() -> Prefix {
      let isV4 = Bool.random(using: &numbers)
      let bits = UInt64.random(in: 0..<64, using: &numbers)
      return isV4
        ? Prefix(IPAddress(v4: 0x0A00_0000 | UInt32(bits) << 4), length: .random(in: 20...32, using: &numbers))
        : Prefix(IPAddress(v6High: 0xFD00 << 48 | bits, low: 0), length: .random(in: 56...66, using: &numbers))
    }
    for step in 0..<600 {
      if Int.random(in: 0..<3, using: &numbers) == 0, let gone = list.indices.randomElement(using: &numbers) {
        bag.remove(list.remove(at: gone))
      } else {
        list.append(some())
        bag.insert(list[list.count - 1])
      }
      let asked = some()
      let own = Array(list.shuffled(using: &numbers).prefix(Int.random(in: 0...3, using: &numbers)))
      var others = list
      for prefix in own { others.remove(at: others.firstIndex(of: prefix)!) }
      let overlapping = Set(others.filter(asked.overlaps))
      #expect(Set(bag.all(overlapping: asked, without: own)) == overlapping)
      let first = bag.first(overlapping: asked, without: own)
      #expect(first.map(overlapping.contains) ?? overlapping.isEmpty)
      if step % 50 == 0 {
        #expect(bag == PrefixBag(list))
        #expect(bag.count == Set(list).count)
      }
    }
  }
}

@Suite struct CoordinationCostTests {
  /// What concerns all negotiations is kept once: with a list of all prefixes for each of them, this would be 512 MB.
  @Test func memoryDoesNotGrowWithTheSquareOfThePeers() {
    let peers = 4000
    let configuration = Configuration(
      interface: InterfaceConfiguration(source: .name("none")),
      peers: (0..<peers).map { PeerConfiguration(name: "p\($0)", prefixes: [Prefix(Star.address($0))!]) },
      name: "hub", localPrefixes: [Prefix("10.1.0.0/16")!])
    var numbers = SeededNumbers(seed: 1)
    var coordination = AddressCoordination()
    let before = resident()
    for second in 1...3 {
      coordination.update(configuration, now: .seconds(Double(second)), random: &numbers)
      #expect(coordination.poll(now: .seconds(Double(second) + 0.5)).count <= peers)
    }
    let after = resident()
    #expect(after < before + 256 << 20, "\((after - before) >> 20) MB")
    #expect(coordination.agreements.count == peers)
  }

  /// Bytes of this process that are in memory.
  private func resident() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    guard fgets(&line, 256, file) != nil else { return 0 }
    let fields = line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }.split(separator: 32)
    return (Int(String(decoding: fields[1], as: UTF8.self)) ?? 0) * 4096
  }

  /// A message from one peer leaves the others alone, and deadlines are kept in order however often they change.
  @Test func onePeersMessagesConcernNobodyElse() {
    var configuration = Configuration(
      interface: InterfaceConfiguration(source: .name("none")),
      peers: (0..<50).map { PeerConfiguration(name: "p\($0)", prefixes: [Prefix(Star.address($0))!]) },
      name: "hub", localPrefixes: [Prefix("10.1.0.0/16")!])
    var numbers = SeededNumbers(seed: 2)
    var coordination = AddressCoordination()
    coordination.update(configuration, now: .seconds(1), random: &numbers)
    #expect(coordination.poll(now: .seconds(1)).count == 50)
    #expect(coordination.takeChanges().count == 50)
    #expect(coordination.poll(now: .seconds(1)).isEmpty)
    // A peer's own prefixes change: it begins anew, and nobody else.
    configuration.peers[7].prefixes = [Prefix("10.3.0.0/24")!]
    coordination.update(configuration, now: .seconds(1.5), random: &numbers)
    #expect(coordination.poll(now: .seconds(1.5)).map(\.peer) == ["p7"])
    for second in 2...400 { _ = coordination.poll(now: .seconds(Double(second))) }
    let next = coordination.nextDeadline
    #expect(next.map { $0 > .seconds(400) } == true)
  }
}
