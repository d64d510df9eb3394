import Identity
import PacketIO
import TestSupport
import Testing

/// What is a HIP packet, by a second reader that is written for nothing but to be plain.
@Suite struct PacketShapeTests {
  /// Type and content of all parameters; nil: the bytes are no packet.
  static func plainly(_ bytes: [UInt8]) -> [(type: Int, content: [UInt8])]? {
    guard (40...1280).contains(bytes.count), bytes.count % 8 == 0 else { return nil }
    guard bytes[0] == 59, Int(bytes[1]) * 8 + 8 == bytes.count else { return nil }
    guard [1, 2, 3, 4, 16, 17, 18, 19].contains(bytes[2]), bytes[3] == 0x21, bytes[4] == 0, bytes[5] == 0 else {
      return nil
    }
    for tag in [bytes[8..<24], bytes[24..<40]] {
      guard Array(tag.prefix(3)) == [0x20, 0x01, 0x00], tag[tag.startIndex + 3] / 16 == 2 else { return nil }
    }
    var found: [(type: Int, content: [UInt8])] = []
    var rest = Array(bytes[40...])
    while !rest.isEmpty {
      let type = Int(rest[0]) * 256 + Int(rest[1])
      let count = Int(rest[2]) * 256 + Int(rest[3])
      let whole = Int((Double(4 + count) / 8).rounded(.up)) * 8
      if whole > rest.count { return nil }
      if let last = found.last?.type {
        let mayRepeat = [65, 768, 832, 63425, 63661].contains(type)
        if type < last || type == last && !mayRepeat { return nil }
      }
      found.append((type, Array(rest[4..<4 + count])))
      rest.removeFirst(whole)
    }
    return found
  }

  static func header(_ count: Int) -> [UInt8] {
    let exchange = Exchange.all[0]
    return [59, UInt8(clamping: count / 8 - 1), 16, 0x21, 0, 0, 0, 0] + exchange.initiator.tag.bytes
      + exchange.responder.tag.bytes
  }

  @Test func readersAgree() throws {
    var numbers = SeededNumbers(seed: 0x48_49_50)
    let types = HIPParameter.allCases.map(\.rawValue) + [1, 2, 640, 641, 768, 63425, 63661, 65535]
    var accepted = 0
    for _ in 0..<20_000 {
      var chosen = (0..<numbers.below(9)).map { _ in types[numbers.below(types.count)] }
      if !numbers.chance(200) { chosen.sort() }
      var bytes = Self.header(0)
      for type in chosen {
        let count = numbers.below(numbers.chance(30) ? 1000 : 24)
        bytes += number(type) + number(UInt16(count)) + numbers.bytes(count)
        while bytes.count % 8 != 0 { bytes.append(numbers.chance(100) ? 1 : 0) }
      }
      bytes[1] = UInt8(clamping: bytes.count / 8 - 1)
      // Lengths that overlap, headers that lie, anything.
      if numbers.chance(300) { bytes[numbers.below(bytes.count)] = UInt8(numbers.below(256)) }
      if numbers.chance(50) { bytes = Array(bytes.prefix(numbers.below(bytes.count + 1))) }
      if numbers.chance(50) { bytes += numbers.bytes(8) }

      let plain = Self.plainly(bytes)
      let packet = HIPPacket(bytes)
      #expect((plain == nil) == (packet == nil), "\(bytes)")
      #expect((HIPPacket.problem(bytes) == nil) == (packet != nil))
      guard let plain, let packet else { continue }
      accepted += 1
      #expect(packet.types.map { Int($0) } == plain.map(\.type))
      for type in HIPParameter.allCases {
        let contents = plain.filter { $0.type == type.rawValue }.map(\.content)
        #expect(packet.contents(type).map(Array.init) == contents)
        #expect(packet.content(type).map(Array.init) == contents.first)
      }
      let unknown = plain.first { $0.type % 2 == 1 && HIPParameter(rawValue: UInt16($0.type)) == nil }
      #expect(packet.unknownCritical.map { Int($0) } == unknown?.type)
      #expect(packet.header == withPacketBytes(bytes) { HIPHeader.peek($0) })
    }
    // Neither reader may have become one that refuses everything.
    #expect(accepted > 5000)
  }

  /// A worker's look at a header agrees with the whole check, but for the parameters.
  @Test func headersAreSeenInPlace() {
    let bytes = Self.header(40)
    for place in 0..<40 {
      for bit in 0..<8 {
        var changed = bytes
        changed[place] ^= 1 << bit
        #expect(withPacketBytes(changed) { HIPHeader.peek($0) } == HIPPacket(changed)?.header, "byte \(place)")
      }
    }
    for count in 0...48 where count != 40 {
      let cut = Array((bytes + [UInt8](repeating: 0, count: 8)).prefix(count))
      #expect(withPacketBytes(cut) { HIPHeader.peek($0) } == nil, "\(count) bytes")
    }
    let overrun = Self.header(48) + [0, 65, 0, 5, 0, 0, 0, 0]
    #expect(withPacketBytes(overrun) { HIPHeader.peek($0) } != nil)
    #expect(HIPPacket.problem(overrun) == .overrun(type: 65))
  }

  @Test func problemsAreNamed() {
    let good = Self.header(40)
    func problem(_ change: (inout [UInt8]) -> Void) -> HIPProblem? {
      var bytes = good
      change(&bytes)
      return HIPPacket.problem(bytes)
    }
    #expect(problem { _ in } == nil)
    #expect(problem { $0.removeLast() } == .length(39))
    #expect(problem { $0[1] = 5 } == .length(40))
    #expect(problem { $0[0] = 6 } == .nextHeader(6))
    #expect(problem { $0[3] = 0x11 } == .version(0x11))
    #expect(problem { $0[5] = 9 } == .checksum(9))
    #expect(problem { $0[2] = 0x81 } == .kind(0x81))
    #expect(problem { $0[8] = 0 } == .sender)
    #expect(problem { $0.replaceSubrange(24..<40, with: [UInt8](repeating: 0, count: 16)) } == .receiver)
    let head: [UInt8] = [0, 65, 0, 0, 0, 0, 0, 0]
    #expect(HIPPacket.problem(Self.header(56) + [1, 1, 0, 0, 0, 0, 0, 0] + head) == .order(type: 65))
    #expect(HIPPacket.problem(Self.header(56) + [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]) == .order(type: 257))
    #expect(HIPPacket.problem(Self.header(56) + head + head) == nil)
    for problem in [HIPProblem.length(1), .nextHeader(1), .version(1), .checksum(1), .kind(1), .sender, .receiver] {
      #expect(!problem.description.isEmpty)
    }
  }

  /// The longest packet is read, and one that is longer is not, though its header can tell of it.
  @Test func lengthIsBounded() {
    func packet(_ count: Int) -> [UInt8] {
      Self.header(count) + [0x99, 0x6A] + number(UInt16(count - 44)) + [UInt8](repeating: 0, count: count - 44)
    }
    #expect(HIPPacket(packet(1280)) != nil)
    #expect(HIPPacket(packet(1288)) == nil && HIPPacket(packet(2048)) == nil)
    let (a, b) = (Exchange.all[0].initiator.tag, Exchange.all[0].responder.tag)
    var builder = HIPBuilder(.close, from: a, to: b)
    builder.append(.echoRequestSigned, [UInt8](repeating: 0, count: 1236))
    #expect(!builder.isTooLong && HIPPacket(builder.finish()) != nil)
    builder.append(.echoResponseSigned, [UInt8](repeating: 0, count: 70_000))
    #expect(builder.isTooLong && HIPPacket(builder.finish()) == nil)
  }

  @Test func proofsOfNothingAreNone() throws {
    let key = KeyMaterial([UInt8](repeating: 1, count: 48))
    let packet = try #require(HIPPacket(Self.header(40)))
    let identity = Exchange.all[0].initiator.publicIdentity
    #expect(!packet.hasValidMAC(key: key, suite: .ecdsa) && !packet.hasValidMAC2(key: key, suite: .ecdsa, hostID: []))
    #expect(!packet.hasValidSignature(by: identity) && !packet.hasValidSignature2(by: identity))
    // Empty ones, and a signature that covers a puzzle behind or too short to have an #I.
    for body: [UInt8] in [
      [0xF0, 0x41, 0, 0, 0, 0, 0, 0], [0xF0, 0x81, 0, 0, 0, 0, 0, 0], [0xF1, 0x01, 0, 0, 0, 0, 0, 0],
      [0xF1, 0x01, 0, 2, 0, 7, 0, 0], [0xF0, 0xC1, 0, 2, 0, 7, 0, 0],
      [1, 1, 0, 1, 0, 0, 0, 0, 0xF0, 0xC1, 0, 3, 0, 7, 0, 0],
      [1, 1, 0, 4, 0, 0, 0, 0, 0xF0, 0xC1, 0, 3, 0, 7, 0, 0],
    ] {
      let packet = try #require(HIPPacket(Self.header(40 + body.count) + body))
      for suite in HostIdentitySuite.allCases {
        #expect(!packet.hasValidMAC(key: key, suite: suite))
        #expect(!packet.hasValidMAC2(key: key, suite: suite, hostID: [UInt8](repeating: 0, count: 3000)))
      }
      #expect(!packet.hasValidSignature(by: identity) && !packet.hasValidSignature2(by: identity))
    }
  }
}
