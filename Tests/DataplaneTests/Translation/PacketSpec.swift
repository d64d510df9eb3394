import PacketIO

@testable import Dataplane

/// A packet as a description, from which its bytes are made with every checksum computed from scratch. A translated
/// packet is then the bytes of the translated description.
struct PacketSpec {
  indirect enum Body {
    case tcp([UInt8], payload: [UInt8])
    case udp(source: UInt16, destination: UInt16, payload: [UInt8], hasChecksum: Bool)
    case udpLite(payload: [UInt8])
    case icmp(type: UInt8, code: UInt8, rest: [UInt8])
    /// The quoted packet, of which that many bytes are there.
    case error(type: UInt8, code: UInt8, quoted: PacketSpec, bytes: Int)
    case other(UInt8, [UInt8])
  }

  var source: [UInt8]
  var destination: [UInt8]
  var body: Body
  /// IPv4 options, whole words; or IPv6 hop-by-hop options.
  var options: [UInt8] = []
  var identification: UInt16 = 1
  var hops: UInt8 = 64
  /// IPv4 DF.
  var dontFragment = false

  var isV4: Bool { source.count == 4 }

  func translated(_ rewriting: NaiveRewriting) -> PacketSpec {
    var spec = self
    spec.source = rewriting.source(source)
    spec.destination = rewriting.destination(destination)
    if case .error(let type, let code, var quoted, let bytes) = body {
      // Without both addresses there is nothing to translate.
      if bytes >= (quoted.isV4 ? 20 : 40) {
        quoted.source = rewriting.destination(quoted.source)
        quoted.destination = rewriting.source(quoted.destination)
      }
      spec.body = .error(type: type, code: code, quoted: quoted, bytes: bytes)
    }
    return spec
  }

  var transport: UInt8 {
    switch body {
    case .tcp: 6
    case .udp: 17
    case .udpLite: 136
    case .icmp, .error: isV4 ? 1 : 58
    case .other(let number, _): number
    }
  }

  /// Transport header and payload. With `partial` the checksum field holds the pseudo-header's sum only.
  func segment(partial: Bool = false) -> [UInt8] {
    func withChecksum(_ bytes: [UInt8], at field: Int, pseudo: Bool, avoidsZero: Bool = false) -> [UInt8] {
      var bytes = bytes
      let header = pseudo ? pseudoHeader(length: bytes.count) : []
      let sum = partial ? onesComplementSum(header) : naiveChecksum(header + bytes)
      let value = sum == 0 && avoidsZero ? 0xFFFF : sum
      bytes.replaceSubrange(field..<field + 2, with: big16(value))
      return bytes
    }
    switch body {
    case .tcp(let header, let payload):
      return withChecksum(header + payload, at: 16, pseudo: true)
    case .udp(let source, let destination, let payload, let hasChecksum):
      let bytes = big16(source) + big16(destination) + big16(8 + payload.count) + [0, 0] + payload
      return hasChecksum ? withChecksum(bytes, at: 6, pseudo: true, avoidsZero: !partial) : bytes
    case .udpLite(let payload):
      return withChecksum([0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0] + payload, at: 6, pseudo: true, avoidsZero: true)
    case .icmp(let type, let code, let rest):
      return withChecksum([type, code, 0, 0] + rest, at: 2, pseudo: !isV4)
    case .error(let type, let code, let quoted, let count):
      let bytes = [type, code, 0, 0, 0, 0, 0, 0] + quoted.bytes().prefix(count)
      return withChecksum(bytes, at: 2, pseudo: !isV4)
    case .other(_, let bytes): return bytes
    }
  }

  private func pseudoHeader(length: Int) -> [UInt8] {
    isV4
      ? source + destination + [0, transport] + big16(length)
      : source + destination + big32(length) + [0, 0, 0, transport]
  }

  func bytes(partial: Bool = false) -> [UInt8] { packet(segment(partial: partial)) }

  /// An IP packet around a piece of the segment.
  private func packet(_ payload: [UInt8], fragmentOffset: Int = 0, more: Bool = false, isFragment: Bool = false)
    -> [UInt8]
  {
    if isV4 {
      let headerLength = 20 + options.count
      let flags = (dontFragment ? 0x4000 : 0) | (more ? 0x2000 : 0) | fragmentOffset / 8
      var header: [UInt8] = [0x40 | UInt8(headerLength / 4), 0x2E] + big16(headerLength + payload.count)
      header += big16(identification) + big16(flags) + [hops, transport, 0, 0] + source + destination + options
      header.replaceSubrange(10..<12, with: big16(naiveChecksum(header)))
      return header + payload
    }
    var chain: [UInt8] = []
    var next = transport
    if isFragment {
      chain = [next, 0] + big16(fragmentOffset | (more ? 1 : 0)) + big32(identification)
      next = 44
    }
    if !options.isEmpty {
      // PadN over the whole of it.
      chain = [next, UInt8((options.count + 2) / 8 - 1)] + options + chain
      next = 0
    }
    return [0x62, 0xE0, 0x12, 0x34] + big16(chain.count + payload.count) + [next, hops] + source + destination + chain
      + payload
  }

  /// The packet in fragments with that much payload each, a multiple of 8.
  func fragments(_ size: Int) -> [[UInt8]] {
    let whole = segment()
    return stride(from: 0, to: whole.count, by: size).map { start in
      packet(
        Array(whole[start..<min(start + size, whole.count)]), fragmentOffset: start, more: start + size < whole.count,
        isFragment: true)
    }
  }
}

/// Makes descriptions at random.
struct PacketGenerator {
  var numbers: SeededNumbers
  /// Prefixes that addresses are taken from most of the time.
  var prefixes: [Prefix]

  func address(_ isV4: Bool, _ numbers: inout SeededNumbers) -> [UInt8] {
    let random = numbers.bytes(isV4 ? 4 : 16)
    let fitting = prefixes.filter { $0.address.isV4 == isV4 }
    guard let prefix = fitting.randomElement(using: &numbers), Int.random(in: 0..<8, using: &numbers) > 0 else {
      return random
    }
    var host = random
    // Words of all ones are what RFC 6296 has to step over.
    if !isV4, Bool.random(using: &numbers) {
      for word in 3..<8 where Bool.random(using: &numbers) {
        host[word * 2] = 0xFF
        host[word * 2 + 1] = 0xFF
      }
    }
    return NaivePair(from: host, to: prefix.address.octets, length: 0).overlay(prefix, on: host)
  }

  mutating func spec(isV4: Bool? = nil, isQuoted: Bool = false) -> PacketSpec {
    let isV4 = isV4 ?? Bool.random(using: &numbers)
    var spec = PacketSpec(
      source: address(isV4, &numbers), destination: address(isV4, &numbers), body: body(isV4, isQuoted: isQuoted))
    if Int.random(in: 0..<4, using: &numbers) == 0 {
      spec.options =
        isV4
        ? [UInt8](repeating: 1, count: 4 * .random(in: 1...10, using: &numbers))
        : [1, UInt8(8 * .random(in: 0...3, using: &numbers) + 4)].withPadding
    }
    spec.identification = .random(in: 0 ... .max, using: &numbers)
    spec.hops = .random(in: 0 ... .max, using: &numbers)
    spec.dontFragment = Bool.random(using: &numbers)
    return spec
  }

  private mutating func body(_ isV4: Bool, isQuoted: Bool) -> PacketSpec.Body {
    let payload = numbers.bytes(.random(in: 0...100, using: &numbers))
    switch Int.random(in: 0..<(isQuoted ? 7 : 9), using: &numbers) {
    case 0, 1:
      let options = numbers.bytes(4 * .random(in: 0...10, using: &numbers))
      var header = numbers.bytes(20) + options
      header[12] = UInt8(header.count / 4) << 4
      return .tcp(header, payload: payload)
    case 2, 3:
      return .udp(
        source: .random(in: 0 ... .max, using: &numbers), destination: .random(in: 0 ... .max, using: &numbers),
        payload: payload, hasChecksum: Int.random(in: 0..<4, using: &numbers) > 0)
    case 4: return .udpLite(payload: payload)
    case 5:
      let type: UInt8 = isV4 ? [0, 8, 13].randomElement(using: &numbers)! : [128, 129].randomElement(using: &numbers)!
      return .icmp(type: type, code: 0, rest: numbers.bytes(4) + payload)
    case 6: return .other([47, 50, 132].randomElement(using: &numbers)!, payload)
    default:
      let quoted = spec(isV4: isV4, isQuoted: true)
      let whole = quoted.bytes().count
      let type: UInt8 = isV4 ? [3, 4, 5, 11, 12].randomElement(using: &numbers)! : .random(in: 1...4, using: &numbers)
      // Not in the middle of a word: half a checksum is of no use to anybody.
      let count = Bool.random(using: &numbers) ? whole : .random(in: 0...whole / 2, using: &numbers) * 2
      return .error(type: type, code: .random(in: 0...5, using: &numbers), quoted: quoted, bytes: count)
    }
  }
}

extension [UInt8] {
  /// A PadN option, whose second byte is the length of what follows.
  fileprivate var withPadding: [UInt8] { self + [UInt8](repeating: 0, count: Int(self[1])) }
}

extension NaivePair {
  /// `host` with the bits of `prefix` in front.
  fileprivate func overlay(_ prefix: Prefix, on host: [UInt8]) -> [UInt8] {
    var result = host
    let octets = prefix.address.octets
    for bit in 0..<prefix.length {
      let mask: UInt8 = 1 << (7 - UInt8(bit % 8))
      result[bit / 8] = result[bit / 8] & ~mask | octets[bit / 8] & mask
    }
    return result
  }
}
