import PacketIO

/// The names that stand for addresses in DNS: 20.7.64.100.in-addr.arpa (RFC 1035 section 3.5), and 32 hexadecimal
/// digits under ip6.arpa (RFC 3596 section 2.5). Lowest digit first, each in a label of its own.
enum ReverseName {
  /// Labels of the number; "in-addr" or "ip6" and "arpa" follow.
  static func labels(isV4: Bool) -> Int { isV4 ? 4 : 32 }

  /// Reads the number of a name that `DNSMessage` has read, following its pointers.
  /// - Returns: nil where its labels are not such a number's; leading zeros are not.
  static func parse(_ message: PacketBytes, _ name: DNSMessage.Name, isV4: Bool) -> IPAddress? {
    var place = name.start
    var number: UInt128 = 0
    for index in 0..<labels(isV4: isV4) {
      while message[place] >= 0xC0 { place = Int(message.load16(place) & 0x3FFF) }
      guard let digit = isV4 ? decimal(message, label: place) : nibble(message, label: place) else { return nil }
      number |= UInt128(digit) &<< UInt128(index &* (isV4 ? 8 : 4))
      place &+= 1 &+ Int(message[place])
    }
    let low = UInt64(truncatingIfNeeded: number)
    return isV4
      ? IPAddress(v4: UInt32(truncatingIfNeeded: low))
      : IPAddress(v6High: UInt64(truncatingIfNeeded: number >> 64), low: low)
  }

  /// Bytes of the number's labels, their length bytes included.
  static func length(of address: IPAddress) -> Int {
    guard address.isV4 else { return 64 }
    return (0..<4).reduce(0) { $0 &+ 1 &+ digits(octet(address, $1)) }
  }

  /// Writes the number's labels. Hexadecimal letters keep the case of the digit that stood in their place, for
  /// resolvers that compare.
  static func write(_ address: IPAddress, to message: PacketBytes, at start: Int) {
    var place = start
    if address.isV4 {
      for index in 0..<4 {
        let octet = octet(address, index)
        let count = digits(octet)
        message[place] = UInt8(truncatingIfNeeded: count)
        var rest = octet
        for digit in stride(from: count, to: 0, by: -1) {
          message[place &+ digit] = UInt8(ascii: "0") &+ rest % 10
          rest /= 10
        }
        place &+= 1 &+ count
      }
    } else {
      for index in 0..<32 {
        let half = index < 16 ? address.low : address.high
        let digit = UInt8(truncatingIfNeeded: half &>> UInt64((index & 15) &* 4)) & 15
        let isUppercase = (UInt8(ascii: "A")...UInt8(ascii: "F")).contains(message[place &+ 1])
        message[place] = 1
        message[place &+ 1] =
          digit < 10 ? UInt8(ascii: "0") &+ digit : UInt8(ascii: isUppercase ? "A" : "a") &+ digit &- 10
        place &+= 2
      }
    }
  }

  /// Where label `index` of the number begins, relative to the first.
  static func offset(ofLabel index: Int, in address: IPAddress) -> Int {
    guard address.isV4 else { return index &* 2 }
    return (0..<index).reduce(0) { $0 &+ 1 &+ digits(octet(address, $1)) }
  }

  /// Octet `index`, the lowest first.
  private static func octet(_ address: IPAddress, _ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: address.v4 &>> UInt32(index &* 8))
  }

  private static func digits(_ octet: UInt8) -> Int { octet < 10 ? 1 : octet < 100 ? 2 : 3 }

  /// The label lies within the message.
  private static func decimal(_ message: PacketBytes, label: Int) -> UInt8? {
    let count = Int(message[label])
    guard (1...3).contains(count) else { return nil }
    if count > 1, message[label &+ 1] == UInt8(ascii: "0") { return nil }
    var value = 0
    for place in label &+ 1...label &+ count {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(message[place]) else { return nil }
      value = value &* 10 &+ Int(message[place] &- UInt8(ascii: "0"))
    }
    return UInt8(exactly: value)
  }

  private static func nibble(_ message: PacketBytes, label: Int) -> UInt8? {
    guard message[label] == 1 else { return nil }
    let character = message[label &+ 1]
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): return character &- UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): return character &- UInt8(ascii: "a") &+ 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): return character &- UInt8(ascii: "A") &+ 10
    default: return nil
    }
  }
}
