import PacketIO
import Testing

@testable import Dataplane

/// Longest prefix by looking at all of them; of equal ones the last.
private func scan(_ routes: [(Prefix, UInt32)], _ address: IPAddress) -> UInt32? {
  var best: (length: Int, value: UInt32)?
  for (prefix, value) in routes where prefix.contains(address) && prefix.length >= best?.length ?? 0 {
    best = (prefix.length, value)
  }
  return best?.value
}

private func table(_ routes: [String: UInt32]) throws -> RouteTable {
  RouteTable(try routes.map { (try #require(Prefix($0.key)), $0.value) })
}

private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

extension IPAddress {
  /// As a 128-bit number of which an IPv4 address is the top.
  fileprivate var number: UInt128 { UInt128(high) << 64 | UInt128(low) }

  fileprivate init(_ number: UInt128, _ family: Family) {
    self.init(v6High: UInt64(truncatingIfNeeded: number >> 64), low: UInt64(truncatingIfNeeded: number))
    if family == .v4 { self.init(v4: UInt32(truncatingIfNeeded: number >> 96)) }
  }
}

extension SeededNumbers {
  fileprivate mutating func address(_ family: IPAddress.Family) -> IPAddress {
    IPAddress(UInt128(next()) << 64 | UInt128(next()), family)
  }
}

/// How a test's prefixes lie.
enum RouteShape: String, CaseIterable, Sendable {
  /// Any length, anywhere.
  case scattered
  /// Under few short prefixes, as real networks are.
  case clustered
  /// Host routes side by side and apart.
  case hosts
  /// Each within the one before.
  case nested

  fileprivate func routes(_ count: Int, _ family: IPAddress.Family, _ numbers: inout SeededNumbers) -> [(
    Prefix, UInt32
  )] {
    let width = family == .v4 ? 32 : 128
    let anchors = (0..<3).map { _ in numbers.address(family) }
    return (0..<count).map { index in
      let value = UInt32.random(in: 0..<50, using: &numbers)
      let random = numbers.address(family)
      let anchor = anchors[Int.random(in: 0..<3, using: &numbers)]
      switch self {
      case .scattered:
        return (Prefix(random, length: .random(in: 0...width, using: &numbers)), value)
      case .clustered:
        let fixed = Int.random(in: width / 4...width / 2, using: &numbers)
        let rest = random.number >> UInt128(fixed)
        let high = anchor.number & ~(UInt128.max >> UInt128(fixed))
        return (Prefix(IPAddress(high | rest, family), length: .random(in: fixed...width, using: &numbers)), value)
      case .hosts:
        let number = anchor.number &+ UInt128(index) << UInt128(128 - width)
        return (Prefix(index % 2 == 0 ? IPAddress(number, family) : random, length: width), value)
      case .nested:
        return (Prefix(anchor, length: index % (width + 1)), value)
      }
    }
  }
}

@Suite struct RouteTableTests {
  @Test func theLongestPrefixWins() throws {
    let routes = try table([
      "0.0.0.0/0": 0, "10.0.0.0/8": 1, "10.1.0.0/16": 2, "10.1.2.0/24": 3, "10.1.2.3/32": 4, "10.1.2.128/25": 5,
      "255.255.255.255/32": 6, "0.0.0.0/32": 7, "128.0.0.0/1": 8,
    ])
    let expected: [(String, UInt32)] = [
      ("9.255.255.255", 0), ("10.0.0.0", 1), ("10.0.255.255", 1), ("10.1.0.0", 2), ("10.1.1.255", 2),
      ("10.1.2.0", 3), ("10.1.2.2", 3), ("10.1.2.3", 4), ("10.1.2.4", 3), ("10.1.2.127", 3), ("10.1.2.128", 5),
      ("10.1.2.255", 5), ("10.1.3.0", 2), ("10.2.0.0", 1), ("11.0.0.0", 0), ("0.0.0.0", 7), ("0.0.0.1", 0),
      ("127.255.255.255", 0), ("128.0.0.0", 8), ("255.255.255.254", 8), ("255.255.255.255", 6),
    ]
    for (text, value) in expected { #expect(routes.lookup(try address(text)) == value, "\(text)") }
    #expect(routes.lookup(try address("::")) == nil)
  }

  @Test func familiesAreApart() throws {
    let routes = try table(["::/0": 1, "2001:db8::/32": 2, "2001:db8::1/128": 3, "0.0.0.0/1": 4])
    #expect(routes.lookup(try address("::")) == 1)
    #expect(routes.lookup(try address("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff")) == 1)
    #expect(routes.lookup(try address("2001:db8::")) == 2)
    #expect(routes.lookup(try address("2001:db8::1")) == 3)
    #expect(routes.lookup(try address("2001:db8::2")) == 2)
    #expect(routes.lookup(try address("2001:db9::")) == 1)
    #expect(routes.lookup(try address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")) == 1)
    #expect(routes.lookup(try address("32.1.13.184")) == 4)
    #expect(routes.lookup(try address("128.0.0.0")) == nil)
  }

  @Test func anEmptyTableHasNothing() throws {
    let routes = RouteTable([])
    #expect(routes.lookup(try address("10.0.0.1")) == nil)
    #expect(routes.lookup(try address("2001:db8::1")) == nil)
  }

  @Test func ofEqualPrefixesTheLastCounts() throws {
    let prefix = try #require(Prefix("10.0.0.0/8"))
    let inner = try #require(Prefix("10.1.0.0/16"))
    let routes = RouteTable([(prefix, 1), (inner, 2), (prefix, 3), (inner, 4), (prefix, 5)])
    #expect(routes.lookup(try address("10.0.0.0")) == 5)
    #expect(routes.lookup(try address("10.1.0.0")) == 4)
    #expect(routes.lookup(try address("10.2.0.0")) == 5)
    #expect(routes.lookup(try address("11.0.0.0")) == nil)
  }

  @Test(arguments: RouteShape.allCases, [IPAddress.Family.v4, .v6])
  func agreesWithAScan(shape: RouteShape, family: IPAddress.Family) {
    for (seed, count) in [1, 2, 3, 5, 10, 40, 150, 600].enumerated() {
      var numbers = SeededNumbers(seed: UInt64(seed))
      let routes = shape.routes(count, family, &numbers)
      let table = RouteTable(routes)
      // Every prefix's edges, both sides of them, and addresses at random.
      let unit = UInt128(1) << UInt128(family == .v4 ? 96 : 0)
      var probes = (0..<200).map { _ in numbers.address(family) }
      for (prefix, _) in routes.prefix(150) {
        let first = prefix.address.number
        let behind = prefix.length == 0 ? 0 : first &+ UInt128(1) << UInt128(128 - prefix.length)
        probes += [first, first &- unit, behind, behind &- unit].map { IPAddress($0, family) }
      }
      for probe in probes { #expect(table.lookup(probe) == scan(routes, probe), "\(probe), \(count) routes") }
    }
  }

  /// Ten thousand routes of every shape stay within a few megabytes.
  @Test(arguments: RouteShape.allCases, [IPAddress.Family.v4, .v6])
  func tenThousandRoutes(shape: RouteShape, family: IPAddress.Family) {
    var numbers = SeededNumbers(seed: 99)
    let routes = shape.routes(10_000, family, &numbers)
    let table = RouteTable(routes)
    #expect(table.memory < 4 << 20, "\(table.memory) bytes")
    for (prefix, _) in routes.shuffled(using: &numbers).prefix(50) {
      #expect(table.lookup(prefix.address) == scan(routes, prefix.address))
    }
  }

  /// Prefixes come, go and lead elsewhere: a table that is made from the one before has what a scan finds.
  @Test(arguments: RouteShape.allCases, [IPAddress.Family.v4, .v6])
  func changesComeToWhatAScanFinds(shape: RouteShape, family: IPAddress.Family) {
    var numbers = SeededNumbers(seed: 11)
    let supply = shape.routes(300, family, &numbers).map(\.0)
    let unit = UInt128(1) << UInt128(family == .v4 ? 96 : 0)
    var index = RouteIndex()
    var table = RouteTable([])
    var owned: [Int: [Prefix]] = [:]
    for step in 0..<300 {
      let row = Int.random(in: 0..<150, using: &numbers)
      // At first there are more and more, then fewer and fewer.
      let comes = Int.random(in: 0..<300, using: &numbers) > step - 70
      let new =
        comes ? (0..<Int.random(in: 1...3, using: &numbers)).map { _ in supply.randomElement(using: &numbers)! } : nil
      let distinct = new.map { Array(Set($0)) }
      index.replace(owned[row].map { ($0, row) }, by: distinct.map { ($0, row) }, row: row)
      var probes = ((owned[row] ?? []) + (distinct ?? [])).flatMap { prefix in
        let first = prefix.address.number
        let behind = prefix.length == 0 ? 0 : first &+ UInt128(1) << UInt128(128 - prefix.length)
        return [first, first &- unit, behind, behind &- unit].map { IPAddress($0, family) }
      }
      owned[row] = distinct
      if let next = index.next(after: table) { table = next }
      #expect(index.next(after: table) == nil)
      probes += (0..<6).map { _ in supply.randomElement(using: &numbers)!.address } + [numbers.address(family)]
      let routes = owned.sorted { $0.key < $1.key }.flatMap { row, list in list.map { ($0, UInt32(row)) } }
      for probe in probes {
        #expect(table.lookup(probe) == scan(routes, probe), "\(probe) in step \(step) of \(routes.count) routes")
      }
    }
  }

  /// What one host more costs does not hang on the others: only its own slot is asked for.
  @Test func aHostMoreIsNotCompiledAnew() throws {
    func host(_ number: Int) -> Prefix { Prefix(IPAddress(v4: 0x0A00_0000 | UInt32(number)), length: 32) }
    var hosts = Set(0..<10_000)
    var table = RouteTable(hosts.sorted().map { (host($0), UInt32($0)) })
    var asked = 0
    for number in [5_000, 10_000, 10_007, 0, 5_000] {
      if !hosts.insert(number).inserted { hosts.remove(number) }
      let next = table.changed([host(number)]) { block in
        let inside = hosts.filter { block.covers(host($0)) }.sorted()
        asked = max(asked, inside.count)
        return (nil, inside.map { (host($0), UInt32($0)) })
      }
      table = try #require(next)
      for other in Array(stride(from: 0, to: 10_020, by: 37)) + [number - 1, number, number + 1] where other >= 0 {
        #expect(table.lookup(host(other).address) == (hosts.contains(other) ? UInt32(other) : nil), "\(other)")
      }
    }
    #expect(asked <= 8, "asked for \(asked) hosts")
  }
}
