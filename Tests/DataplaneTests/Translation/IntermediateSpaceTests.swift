import PacketIO
import Testing

@testable import Dataplane

@Suite struct IntermediateSpaceTests {
  private func prefix(_ text: String) throws -> Prefix { try #require(Prefix(text)) }

  /// Every prefix of a length inside a small pool, one by one.
  private func all(_ pool: Prefix, length: Int) -> [Prefix] {
    (0..<1 << (length - pool.length)).map { slot in
      let bits = UInt128(slot) << UInt128(128 - length)
      return Prefix(IPAddress(number: pool.address.number | bits, pool.address.family), length: length)
    }
  }

  @Test(arguments: ["100.112.0.0/20", "fd00:5::/116"])
  func whatIsFreeIsFoundAndNothingElse(text: String) throws {
    let pool = try prefix(text)
    for seed in 0..<300 as Range<UInt64> {
      var numbers = SeededNumbers(seed: seed)
      let length = pool.length + Int.random(in: 0...6, using: &numbers)
      let slots = all(pool, length: length)
      let avoided = (0..<Int.random(in: 0...80, using: &numbers)).map { _ in
        let inside = slots.randomElement(using: &numbers)!.address
        let number = inside.number | UInt128(numbers.next() & 0xFFF) << (inside.isV4 ? 96 : 0)
        return Prefix(
          IPAddress(number: number, inside.family),
          length: .random(in: pool.length + 1...inside.bitWidth, using: &numbers))
      }
      let free = slots.filter { slot in !avoided.contains { $0.overlaps(slot) } }
      let found = IntermediateSpace.candidate(
        for: Prefix(IPAddress(number: UInt128(numbers.next()), pool.address.family), length: length), owner: "a\(seed)",
        knower: "b", pool: [pool], avoiding: avoided)
      if let found { #expect(free.contains(found), "\(seed)") } else { #expect(free == [], "\(seed)") }
    }
  }

  @Test func theChoiceIsStableAndOfOnesOwn() throws {
    let lan = try prefix("192.168.1.0/24")
    func choice(_ owner: String, _ knower: String, _ avoiding: [Prefix] = []) -> Prefix? {
      IntermediateSpace.candidate(
        for: lan, owner: owner, knower: knower, pool: IntermediateSpace.defaultPool, avoiding: avoiding)
    }
    // Recorded: a later version must not renumber what users have in their notes.
    #expect(choice("oslo", "bergen")?.description == "100.114.249.0/24")
    #expect(choice("bergen", "oslo")?.description == "100.125.240.0/24")
    let v6 = IntermediateSpace.candidate(
      for: try prefix("fd00:1::/64"), owner: "oslo", knower: "bergen", pool: IntermediateSpace.defaultPool, avoiding: []
    )
    #expect(v6?.description == "fd08:5bf2:8ccf:d69::/64")
    // Avoiding something else changes nothing; avoiding the choice moves it.
    #expect(choice("oslo", "bergen", [try prefix("10.0.0.0/8")]) == choice("oslo", "bergen"))
    #expect(choice("oslo", "bergen", [try #require(choice("oslo", "bergen"))]) != choice("oslo", "bergen"))

    var chosen: Set<Prefix> = []
    for partner in 0..<200 {
      let (a, b) = (try #require(choice("hub", "site\(partner)")), try #require(choice("site\(partner)", "hub")))
      #expect(a != b)
      chosen.formUnion([a, b])
    }
    // 400 of 4096: about 19 pairs are expected to meet.
    #expect(chosen.count > 360, "\(chosen.count)")
  }

  @Test func poolsThatDoNotFitArePassedOver() throws {
    func choice(_ lan: String, _ pool: [String]) throws -> String? {
      IntermediateSpace.candidate(
        for: try prefix(lan), owner: "a", knower: "b", pool: try pool.map(prefix), avoiding: [])?.description
    }
    #expect(try choice("10.0.0.0/8", ["100.112.0.0/12"]) == nil)
    #expect(try choice("10.0.0.0/24", ["fd00::/48"]) == nil)
    #expect(try choice("10.0.0.0/12", ["fd00::/48", "100.112.0.0/12"]) == "100.112.0.0/12")
    #expect(try choice("10.0.0.0/8", ["100.112.0.0/12", "9.0.0.0/8"]) == "9.0.0.0/8")
    #expect(try choice("2001:db8::/32", ["::/0"])?.hasSuffix("::/32") == true)
    #expect(try choice("10.1.2.3/32", ["0.0.0.0/0"])?.hasSuffix("/32") == true)
  }

  @Test func overlapIsSymmetricAndCoverIsNot() throws {
    let (wide, narrow, other) = (try prefix("10.0.0.0/8"), try prefix("10.1.0.0/16"), try prefix("11.0.0.0/8"))
    #expect(wide.overlaps(narrow) && narrow.overlaps(wide) && !wide.overlaps(other))
    #expect(wide.covers(narrow) && !narrow.covers(wide) && wide.covers(wide))
    #expect(!(try prefix("::/0")).overlaps(wide))
  }
}
