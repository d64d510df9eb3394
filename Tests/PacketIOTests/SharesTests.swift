import PacketIO
import TestSupport
import Testing

@Suite struct SharesTests {
  private static let bob = Holder.peer(1)
  private static let carol = Holder.peer(2)

  @Test func whoTakesAllHeCanGetsAThird() {
    var shares = Shares(.sendQueues, capacity: 96)
    while shares.take(for: Self.bob) {}
    #expect(shares.held(by: Self.bob) == 32)
    while shares.take(for: Self.carol) {}
    #expect(shares.held(by: Self.carol) >= 21)
    #expect(shares.used < 96)
  }

  @Test func leastIsEverybodysWhileThereIsAny() {
    var shares = Shares(.sendQueues, capacity: 4, least: 1)
    for peer in 0..<4 as Range<UInt32> {
      let taken = shares.take(for: .peer(peer))
      #expect(taken)
    }
    let more = shares.take(for: .peer(9))
    #expect(!more && shares.refused == 1)
  }

  @Test func whoHoldsMostGivesWay() {
    var shares = Shares(.pendingFlowsInbound, capacity: 10)
    shares.add(8, to: Self.bob)
    shares.add(2, to: Self.carol)
    let forCarol = shares.victim(for: Self.carol)
    let forBob = shares.victim(for: Self.bob)
    #expect(forCarol == Self.bob && forBob == Self.bob)
    #expect(shares.report().holders.first?.refused == 2)
  }

  @Test func equalsPushOutTheirOwn() {
    var shares = Shares(.pendingFlowsInbound, capacity: 10)
    shares.add(5, to: Self.bob)
    shares.add(5, to: Self.carol)
    let victims = [shares.victim(for: Self.bob), shares.victim(for: Self.carol)]
    #expect(victims == [Self.bob, Self.carol])
  }

  @Test func strangersOfOneSiteAreOne() {
    let here = Holder(strangerAt: IPAddress("2001:db8:0:12::1")!)
    let neighbour = Holder(strangerAt: IPAddress("2001:db8:0:ff::2")!)
    let elsewhere = Holder(strangerAt: IPAddress("2001:db8:0:112::1")!)
    #expect(here == neighbour && here != elsewhere)
  }

  /// Beside plain dictionaries: what each holds, that a victim has nearly the most, and that nothing is left over.
  @Test(arguments: [1, 2, 3] as [UInt64])
  func keepsBooksLikeADictionary(seed: UInt64) {
    var numbers = SeededNumbers(seed: seed)
    var shares = Shares(.pendingFlowsInbound, capacity: 500)
    var model: [Holder: Int] = [:]
    for step in 0..<20_000 {
      // Some want much more than others.
      let number = UInt32(Int.random(in: 0..<40, using: &numbers) * Int.random(in: 0..<40, using: &numbers) / 40)
      let holder: Holder = number & 1 == 0 ? .peer(number) : .origin(IPAddress(v4: number))
      if numbers.next() % 5 < 3 {
        if shares.isFull {
          let victim = shares.victim(for: holder)
          let most = model.values.max() ?? 0
          let lost = model[victim] ?? 0
          #expect(lost > 0 || victim == holder, "step \(step)")
          #expect(victim == holder ? most - most / 4 <= lost + 1 : lost >= most - most / 4, "step \(step)")
          guard lost > 0 else { continue }
          shares.give(from: victim)
          model[victim] = lost - 1
        }
        shares.add(to: holder)
        model[holder, default: 0] += 1
      } else if model[holder] ?? 0 > 0 {
        shares.give(from: holder)
        model[holder]! -= 1
      }
      if step % 100 == 0 {
        #expect(shares.used == model.values.reduce(0, +))
        for (holder, held) in model { #expect(shares.held(by: holder) == held) }
      }
    }
    for (holder, held) in model where held > 0 { shares.give(held, from: holder) }
    #expect(shares.used == 0 && shares.report().holders.allSatisfy { $0.held == 0 })
  }
}
