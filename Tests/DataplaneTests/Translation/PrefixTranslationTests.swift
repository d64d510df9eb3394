import PacketIO
import Testing

@testable import Dataplane

/// Pairs at random, of all lengths, some inside others.
struct PairGenerator {
  var numbers: SeededNumbers

  mutating func pairs(_ count: Int) -> [PrefixPair] {
    var pairs: [PrefixPair] = []
    for _ in 0..<count {
      let isV4 = Bool.random(using: &numbers)
      var real = IPAddress(octets: numbers.bytes(isV4 ? 4 : 16))
      let outer = pairs.filter { $0.real.address.isV4 == isV4 }.randomElement(using: &numbers)
      var length: Int = isV4 ? .random(in: 1...32, using: &numbers) : .random(in: 1...128, using: &numbers)
      if !isV4, Bool.random(using: &numbers) { length = [32, 48, 56, 64, 96].randomElement(using: &numbers)! }
      if let outer, outer.real.length < real.bitWidth, Bool.random(using: &numbers) {
        real = outer.real.address
        length = .random(in: outer.real.length + 1...real.bitWidth, using: &numbers)
      }
      let intermediate = IPAddress(octets: numbers.bytes(isV4 ? 4 : 16))
      pairs.append(PrefixPair(real: Prefix(real, length: length), intermediate: Prefix(intermediate, length: length)))
    }
    // One translation for each prefix, and none into another's.
    var kept: [PrefixPair] = []
    for pair in pairs
    where !kept.contains(where: {
      $0.real == pair.real || $0.intermediate.contains(pair.intermediate.address)
        || pair.intermediate.contains($0.intermediate.address)
    }) { kept.append(pair) }
    return kept
  }
}

@Suite struct PrefixTranslationTests {
  private let memory = PacketMemory()

  private func prefixes(_ local: [PrefixPair], _ remote: [PrefixPair]) -> [Prefix] {
    (local + remote).flatMap { [$0.real, $0.intermediate] }
  }

  /// Runs `body` with tables, their oracle and a generator of packets that know them.
  private func each(
    _ seeds: Range<UInt64>,
    _ body: (borrowing PrefixTranslation, NaiveRewriting, NaiveRewriting, inout PacketGenerator) throws -> Void
  ) rethrows {
    for seed in seeds {
      var pairs = PairGenerator(numbers: SeededNumbers(seed: seed))
      let local = pairs.pairs(Int(seed % 5))
      let remote = seed % 3 == 0 ? pairs.pairs(2) : []
      var generator = PacketGenerator(numbers: SeededNumbers(seed: ~seed), prefixes: prefixes(local, remote))
      try body(
        PrefixTranslation(local: local, remote: remote), .outbound(local: local, remote: remote),
        .inbound(local: local, remote: remote), &generator)
    }
  }

  @Test func packetsAreWhatTheirTranslatedDescriptionsSay() throws {
    var changed = 0
    try each(0..<150) { translation, outbound, inbound, generator in
      for _ in 0..<30 {
        let spec = generator.spec()
        let bytes = spec.bytes()
        for isOutbound in [true, false] {
          let packetBytes = memory.load(bytes)
          let packet = try #require(InnerPacket(packetBytes))
          let expected = spec.translated(isOutbound ? outbound : inbound).bytes()
          let isChanged =
            isOutbound
            ? translation.outbound.translate(packetBytes, packet) : translation.inbound.translate(packetBytes, packet)
          let isRight = packetBytes.array() == expected
          #expect(isRight, "\(spec)")
          #expect(memory.isIntact(bytes.count))
          if bytes != expected {
            #expect(isChanged)
            changed += 1
          }
        }
      }
    }
    #expect(changed > 2_500)
  }

  @Test func partialChecksumsHoldThePseudoHeadersSum() throws {
    try each(0..<200) { translation, outbound, _, generator in
      for _ in 0..<20 {
        let spec = generator.spec()
        guard [6, 17].contains(spec.transport) else { continue }
        if case .udp(_, _, _, false) = spec.body { continue }
        let bytes = memory.load(spec.bytes(partial: true))
        let packet = try #require(InnerPacket(bytes))
        let offload = Offload(
          needsChecksum: true, checksumStart: UInt16(packet.transportOffset),
          checksumOffset: spec.transport == 6 ? 16 : 6)
        translation.outbound.translate(bytes, packet, offload)
        let isRight = bytes.array() == spec.translated(outbound).bytes(partial: true)
        #expect(isRight, "\(spec)")
      }
    }
  }

  /// A partial checksum somewhere else, that of a packet in a packet, does not make the outer one partial.
  @Test func aPartialChecksumOfAnotherHeaderIsNotTouched() throws {
    try each(10..<60) { translation, outbound, _, generator in
      let spec = generator.spec()
      guard case .udp(_, _, let payload, _) = spec.body, payload.count > 40 else { return }
      let bytes = memory.load(spec.bytes())
      let packet = try #require(InnerPacket(bytes))
      let offload = Offload(
        needsChecksum: true, checksumStart: UInt16(packet.transportOffset + 28), checksumOffset: 6)
      translation.outbound.translate(bytes, packet, offload)
      let isRight = bytes.array() == spec.translated(outbound).bytes()
      #expect(isRight, "\(spec)")
    }
  }

  @Test(arguments: [8, 16, 24, 64]) func fragmentsPutTogetherAreTheTranslatedPacket(size: Int) throws {
    try each(0..<150) { translation, outbound, _, generator in
      for _ in 0..<10 {
        var spec = generator.spec()
        // A quoted packet that is cut is found in the first fragment or not at all.
        if case .error = spec.body { continue }
        // The first fragment has all headers (RFC 7112), so it has the transport header too.
        if !spec.isV4 { spec.options = [] }
        let translated = spec.translated(outbound)
        for (fragment, expected) in zip(spec.fragments(size), translated.fragments(size)) {
          let bytes = memory.load(fragment)
          let packet = try #require(InnerPacket(bytes))
          translation.outbound.translate(bytes, packet)
          let isRight = bytes.array() == expected
          #expect(isRight, "\(spec)")
        }
      }
    }
  }

  @Test func theOtherDirectionUndoesIt() throws {
    var undone = 0
    try each(0..<200) { translation, outbound, _, generator in
      let reversed = NaiveRewriting(
        source: outbound.source.map(\.reversed), destination: outbound.destination.map(\.reversed))
      let back = AddressRewriting(reversed)
      for _ in 0..<20 {
        let spec = generator.spec()
        // Not so for addresses that were in an intermediate prefix to begin with.
        let original = spec.bytes()
        guard spec.translated(outbound).translated(reversed).bytes() == original else { continue }
        let bytes = memory.load(original)
        let packet = try #require(InnerPacket(bytes))
        if translation.outbound.translate(bytes, packet) { undone += 1 }
        back.translate(bytes, packet)
        let isUndone = bytes.array() == original
        #expect(isUndone, "\(spec)")
      }
    }
    #expect(undone > 500)
  }

  /// Whatever the bytes are: no trap, nothing outside, and it is parsed as the same packet afterwards.
  @Test func rubbishStaysWithinItsBounds() throws {
    each(300..<500) { translation, outbound, _, generator in
      for _ in 0..<50 {
        var bytes = generator.spec().bytes()
        for _ in 0..<Int.random(in: 0...12, using: &generator.numbers) {
          bytes[.random(in: 0..<bytes.count, using: &generator.numbers)] = .random(
            in: 0...255, using: &generator.numbers)
        }
        let packetBytes = memory.load(bytes)
        guard let packet = InnerPacket(packetBytes) else { continue }
        translation.outbound.translate(packetBytes, packet)
        #expect(memory.isIntact(bytes.count))
        #expect(InnerPacket(packetBytes)?.length == packet.length)
        #expect(InnerPacket(packetBytes)?.transportOffset == packet.transportOffset)
      }
    }
  }

  /// Nothing is repaired on the way: what arrives broken is broken for the receiver.
  @Test func aWrongChecksumStaysWrongByAsMuch() throws {
    try each(0..<100) { translation, outbound, _, generator in
      let spec = generator.spec()
      guard case .tcp = spec.body else { return }
      func broken(_ spec: PacketSpec) -> [UInt8] {
        var bytes = spec.bytes()
        let field = bytes.count - spec.segment().count + 16
        let sum = Int(bytes[field]) << 8 + Int(bytes[field + 1]) + 0x1234
        bytes.replaceSubrange(field..<field + 2, with: big16(sum % 65535))
        return bytes
      }
      let bytes = memory.load(broken(spec))
      translation.outbound.translate(bytes, try #require(InnerPacket(bytes)))
      let isRight = bytes.array() == broken(spec.translated(outbound))
      #expect(isRight, "\(spec)")
    }
  }

  /// A superpacket is translated once; each segment cut from it is what translating the segment would have given.
  @Test(arguments: [true, false], [true, false])
  func superpacketsAreTranslatedBeforeTheyAreCut(isV4: Bool, isTCP: Bool) throws {
    let real = try #require(Prefix(isV4 ? "192.168.1.0/24" : "fd00:1::/64"))
    let known = try #require(Prefix(isV4 ? "100.115.7.0/24" : "fd08:5bf2:c718:9::/64"))
    let translation = PrefixTranslation(local: [PrefixPair(real: real, intermediate: known)])
    var numbers = SeededNumbers(seed: 5)
    let payload = numbers.bytes(10_000)
    var header = numbers.bytes(20)
    header[12] = 0x50
    header[13] = 0x18
    let spec = PacketSpec(
      source: (isV4 ? "192.168.1.9" : "fd00:1::9").octets, destination: (isV4 ? "100.99.1.2" : "fd99::2").octets,
      body: isTCP
        ? .tcp(header, payload: payload) : .udp(source: 1, destination: 2, payload: payload, hasChecksum: true))
    let pool = BufferPool(count: 3)
    let superpacket = Superpacket(
      buffer: 0, offset: 256, length: spec.bytes().count, segmentSize: 1400,
      offload: Offload(
        segmentation: isTCP ? (isV4 ? .tcp4 : .tcp6) : .udp, needsChecksum: true, checksumStart: isV4 ? 20 : 40,
        checksumOffset: isTCP ? 16 : 6))

    func segments(translateFirst: Bool) throws -> [[UInt8]] {
      pool.bytes(0).copy(spec.bytes(partial: true), to: 256)
      let bytes = superpacket.bytes(in: pool)
      let packet = try #require(InnerPacket(bytes))
      if translateFirst { translation.outbound.translate(bytes, packet, superpacket.offload) }
      let cut = try #require(Segmentation(superpacket, packet, bytes, limit: 2000))
      let header = pool.bytes(1).slice(0, Segmentation.headerCapacity)
      header.copy(bytes.slice(0, cut.headerLength), to: 0)
      return try (0..<cut.count).map { index in
        cut.layOut(index, in: bytes, header: header, sums: cut.sums(header))
        let segment = bytes.slice(cut.start(index), cut.length(index)).array()
        if translateFirst { return segment }
        pool.bytes(2).copy(segment, to: 0)
        let copy = pool.bytes(2).slice(0, segment.count)
        translation.outbound.translate(copy, try #require(InnerPacket(copy)))
        return copy.array()
      }
    }
    let first = try segments(translateFirst: true)
    #expect(first.count == 8)
    #expect(first == (try segments(translateFirst: false)))
  }
}

extension NaivePair {
  fileprivate var reversed: NaivePair { NaivePair(from: to, to: from, length: length) }
}

extension String {
  /// The octets of an address.
  var octets: [UInt8] { IPAddress(self)?.octets ?? [] }
}

extension AddressRewriting {
  fileprivate init(_ naive: NaiveRewriting) {
    func rules(_ pairs: [NaivePair]) -> [TranslationRule] {
      pairs.compactMap { pair in
        TranslationRule(
          from: Prefix(IPAddress(octets: pair.from), length: pair.length),
          to: Prefix(IPAddress(octets: pair.to), length: pair.length))
      }
    }
    self.init(source: rules(naive.source), destination: rules(naive.destination))
  }
}
