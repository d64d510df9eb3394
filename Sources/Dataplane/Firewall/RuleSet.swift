import PacketIO

/// Rules compiled, so that finding the first that matches takes about as long among four thousand as among ten.
///
/// Each property of a flow (direction, family and protocol; source; destination; either port) is looked up on its
/// own, in time that does not depend on the number of rules, and gives a vector with one bit a rule: may the rule
/// match as far as this property goes? The first bit that all five vectors have in common is the answer (the bit
/// vector scheme of Lakshman and Stiliadis, 1998). A summary word a vector, one bit for each 64 rules, tells which
/// words can have a bit in common at all (aggregated as by Baboescu and Varghese, 2001), so that few are read.
/// Unlike decision trees this has no bad case: memory grows with rules × distinct values, 64 words are the most that
/// is ever read of a vector, and it happens when a flow begins, not for each packet.
struct RuleSet: ~Copyable {
  let count: Int
  private let words: Int
  /// For each class of values: the summary, then the vector.
  private let vectors: FixedArray<UInt64>
  private let selectors: FixedArray<UInt32>
  private let sources: AddressClasses
  private let destinations: AddressClasses
  private let sourcePorts: PortClasses
  private let destinationPorts: PortClasses

  /// - Parameter rules: enabled ones, in the order in which they are judged, 4096 at most.
  init(_ rules: [FirewallRule]) {
    precondition(rules.count <= FirewallConfiguration.maximumRules)
    var vectors = VectorPool(bits: rules.count)
    count = rules.count
    words = vectors.words
    selectors = RuleSet.selectors(rules, &vectors)
    sources = AddressClasses(rules.map(\.source), &vectors)
    destinations = AddressClasses(rules.map(\.destination), &vectors)
    sourcePorts = PortClasses(rules.map(\.sourcePorts), &vectors)
    destinationPorts = PortClasses(rules.map(\.destinationPorts), &vectors)
    self.vectors = vectors.compiled()
  }

  private static func selectors(_ rules: [FirewallRule], _ vectors: inout VectorPool) -> FixedArray<UInt32> {
    var classes = FixedArray<UInt32>(repeating: 0, count: 1024)
    var named: Set<UInt8> = [IPProtocol.tcp, IPProtocol.udp, IPProtocol.icmp, IPProtocol.icmpV6]
    for case .number(let number) in rules.map(\.protocol) { named.insert(number) }
    for isV4 in [false, true] {
      for direction in [TrafficDirection.outbound, .inbound] {
        let rest = vectors.add { rules[$0].direction.covers(direction) && rules[$0].protocol == .any }
        for number in UInt8.min...UInt8.max {
          classes[selector(direction, number, isV4: isV4)] =
            !named.contains(number)
            ? rest
            : vectors.add {
              rules[$0].direction.covers(direction) && rules[$0].protocol.covers(number, isV4: isV4)
            }
        }
      }
    }
    return classes
  }

  @inline(__always)
  private static func selector(_ direction: TrafficDirection, _ transport: UInt8, isV4: Bool) -> Int {
    Int(transport) << 2 | (isV4 ? 2 : 0) | Int(direction.rawValue)
  }

  /// The place of the first rule that matches.
  borrowing func firstMatch(_ opening: FlowOpening) -> Int? {
    guard count > 0 else { return nil }
    let stride = words &+ 1
    let selector = RuleSet.selector(opening.direction, opening.transport, isV4: opening.isV4)
    let a = Int(selectors[selector]) &* stride
    let b = Int(sources.lookup(opening.source)) &* stride
    let c = Int(destinations.lookup(opening.destination)) &* stride
    let d = Int(opening.hasPorts ? sourcePorts.lookup(opening.sourcePort) : sourcePorts.none) &* stride
    let e = Int(opening.hasPorts ? destinationPorts.lookup(opening.destinationPort) : destinationPorts.none) &* stride
    var candidates = vectors[a] & vectors[b] & vectors[c] & vectors[d] & vectors[e]
    while candidates != 0 {
      let word = candidates.trailingZeroBitCount
      let at = word &+ 1
      let common = vectors[a &+ at] & vectors[b &+ at] & vectors[c &+ at] & vectors[d &+ at] & vectors[e &+ at]
      if common != 0 { return word &* 64 &+ common.trailingZeroBitCount }
      candidates &= candidates &- 1
    }
    return nil
  }

  /// Bytes of all tables.
  var memory: Int {
    vectors.count * 8 + selectors.count * 4 + sources.memory + destinations.memory + sourcePorts.memory
      + destinationPorts.memory
  }
}

/// Bit vectors while they are made: each distinct one is kept once and known by its number, its class.
struct VectorPool {
  let bits: Int
  let words: Int
  private var classes: [[UInt64]: UInt32] = [:]
  private var all: [[UInt64]] = []

  init(bits: Int) {
    self.bits = bits
    words = (bits + 63) / 64
  }

  mutating func add(_ isSet: (Int) -> Bool) -> UInt32 {
    var vector = [UInt64](repeating: 0, count: words)
    for bit in 0..<bits where isSet(bit) { vector[bit / 64] |= 1 << UInt64(bit % 64) }
    return add(vector)
  }

  mutating func add(_ vector: [UInt64]) -> UInt32 {
    if let known = classes[vector] { return known }
    let number = UInt32(all.count)
    classes[vector] = number
    all.append(vector)
    return number
  }

  /// Each vector behind its summary.
  func compiled() -> FixedArray<UInt64> {
    var flat = FixedArray<UInt64>(capacity: all.count * (words + 1))
    for vector in all {
      var summary: UInt64 = 0
      for (place, word) in vector.enumerated() where word != 0 { summary |= 1 << UInt64(place) }
      flat.append(summary)
      for word in vector { flat.append(word) }
    }
    return flat
  }
}

/// From an address to the class of rules whose prefix covers it. Sendable because only the initialiser writes.
struct AddressClasses: ~Copyable {
  private let v4: PrefixMap<UInt32>
  private let v6: PrefixMap<UInt128>
  /// Of addresses that no rule's prefix covers, and of all addresses of a family that no rule names.
  private let others: UInt32

  /// - Parameter prefixes: one for each rule; nil: any address.
  init(_ prefixes: [Prefix?], _ vectors: inout VectorPool) {
    others = vectors.add { prefixes[$0] == nil }
    var open = [UInt64](repeating: 0, count: vectors.words)
    var owners: [Prefix: [Int]] = [:]
    for (rule, prefix) in prefixes.enumerated() {
      if let prefix {
        owners[prefix, default: []].append(rule)
      } else {
        open[rule / 64] |= 1 << UInt64(rule % 64)
      }
    }
    // By start, the outer before the inner: so a prefix's own covering ones are those still on the stack.
    let order = owners.keys.sorted { ($0.address, $0.length) < ($1.address, $1.length) }
    var stack: [(prefix: Prefix, vector: [UInt64])] = []
    var classes: [(Prefix, UInt32)] = []
    for prefix in order {
      while let outer = stack.last, !outer.prefix.contains(prefix.address) { stack.removeLast() }
      var vector = stack.last?.vector ?? open
      for rule in owners[prefix] ?? [] { vector[rule / 64] |= 1 << UInt64(rule % 64) }
      classes.append((prefix, vectors.add(vector)))
      stack.append((prefix, vector))
    }
    v4 = PrefixMap(
      classes.lazy.filter(\.0.address.isV4).map { .init(start: $0.address.v4, length: $0.length, value: $1) })
    v6 = PrefixMap(
      classes.lazy.filter { !$0.0.address.isV4 }.map { .init(start: $0.address.v6, length: $0.length, value: $1) })
  }

  @inline(__always) borrowing func lookup(_ address: IPAddress) -> UInt32 {
    (address.isV4 ? v4.lookup(address.v4) : v6.lookup(address.v6)) ?? others
  }

  var memory: Int { v4.memory + v6.memory }
}

/// From a port to the class of rules whose range covers it: two steps, and equal pages are kept once.
struct PortClasses: ~Copyable {
  /// Of packets without ports.
  let none: UInt32
  private let pages: FixedArray<UInt32>
  private let cells: FixedArray<UInt32>

  /// - Parameter ranges: one for each rule; nil: any port, or none.
  init(_ ranges: [ClosedRange<UInt16>?], _ vectors: inout VectorPool) {
    none = vectors.add { ranges[$0] == nil }
    var classes = [UInt32](repeating: none, count: 65536)
    // Between two edges all ports are alike; at an edge some rules begin to match, or no longer do.
    var edges: [Int: [Int]] = [0: [], 65536: []]
    var vector = [UInt64](repeating: 0, count: vectors.words)
    for (rule, range) in ranges.enumerated() {
      if let range {
        edges[Int(range.lowerBound), default: []].append(rule)
        edges[Int(range.upperBound) + 1, default: []].append(rule)
      } else {
        vector[rule / 64] |= 1 << UInt64(rule % 64)
      }
    }
    let sorted = edges.keys.sorted()
    for (start, end) in zip(sorted, sorted.dropFirst()) {
      for rule in edges[start] ?? [] { vector[rule / 64] ^= 1 << UInt64(rule % 64) }
      let value = vectors.add(vector)
      for port in start..<end { classes[port] = value }
    }
    var known: [ArraySlice<UInt32>: Int] = [:]
    var pages = FixedArray<UInt32>(capacity: 256)
    var distinct: [UInt32] = []
    for page in 0..<256 {
      let content = classes[page * 256..<page * 256 + 256]
      let place = known[content] ?? known.count
      if known.updateValue(place, forKey: content) == nil { distinct += content }
      pages.append(UInt32(place * 256))
    }
    var cells = FixedArray<UInt32>(capacity: distinct.count)
    for value in distinct { cells.append(value) }
    self.pages = pages
    self.cells = cells
  }

  @inline(__always) borrowing func lookup(_ port: UInt16) -> UInt32 {
    cells[Int(pages[Int(port &>> 8)]) &+ Int(port & 0xFF)]
  }

  var memory: Int { (pages.count + cells.count) * 4 }
}
