package import PacketIO

/// What `rewriteDNS` did with a packet.
package enum DNSOutcome: Equatable, BitwiseCopyable, Sendable {
  /// Not a DNS message that names a translated host.
  case untouched
  /// Rewritten; the packet has this many bytes now.
  case rewritten(length: Int)
  /// It names translated hosts, but rewriting would break its signature.
  case signed
  /// It names translated hosts in a way that cannot be rewritten where it stands.
  case unfit
}

extension AddressRewriting {
  /// Rewrites the addresses that a DNS message over UDP speaks of, in a packet whole and alone, before or after its own
  /// addresses are translated: a name server at one site tells hosts of the other how *they* reach a host.
  ///
  /// Rewritten are A and AAAA records of any section (RFC 1035, RFC 3596), and the names of addresses (PTR) wherever a
  /// message has names: in questions on their way to the server, in the answers on their way back. Addresses and names
  /// under ip6.arpa keep their length. Names under in-addr.arpa may not; then the rest of the message moves, and
  /// compression pointers and length fields follow.
  ///
  /// Signed messages stay as they are: such with RRSIG records (RFC 4034), with a transaction signature (RFC 8945,
  /// RFC 2931), and answers that a validator vouches for to somebody who asked for DNSSEC (RFC 4035 section 3.2.3). To
  /// somebody who did not, the validator's word is withdrawn with the rewriting. What is truncated or malformed stays
  /// as it is.
  ///
  /// - Parameters:
  ///   - bytes: the packet and, behind it, what room there is.
  ///   - offload: says whether the UDP checksum is partial.
  ///   - port: of name servers.
  package func rewriteDNS(
    _ bytes: PacketBytes, _ packet: InnerPacket, _ offload: Offload = Offload(), port: UInt16
  ) -> DNSOutcome {
    let udp = packet.transportOffset
    let messageStart = udp &+ 8
    guard packet.transport == IPProtocol.udp, !packet.isFragment, port != 0,
      packet.length >= messageStart &+ DNSMessage.headerLength,
      bytes.load16(udp) == port || bytes.load16(udp &+ 2) == port,
      Int(bytes.load16(udp &+ 4)) == packet.length &- udp
    else { return .untouched }
    let capacity = min(bytes.count, 0xFFFF) &- messageStart
    let length = packet.length &- messageStart
    let oldSum = Checksum.fold(Checksum.sum(bytes.slice(udp, packet.length &- udp)))
    let outcome = rewrite(message: bytes.slice(messageStart, capacity), length: length)
    guard case .rewritten(let newLength) = outcome else { return outcome }

    let growth = ChecksumDelta(UInt16(newLength), replacing: UInt16(length))
    if newLength != length { setLengths(bytes, packet, udpLength: 8 &+ newLength, growth) }
    let newSum = Checksum.fold(Checksum.sum(bytes.slice(udp, 8 &+ newLength)))
    let field = udp &+ 6
    let checksum = bytes.load16(field)
    if offload.needsChecksum, Int(offload.checksumStart) &+ Int(offload.checksumOffset) == field {
      bytes.store16(growth.applied(toSum: checksum), field)
    } else if let place = TransportChecksum(IPProtocol.udp, isV4: packet.isV4) {
      // The length counts twice: in the header, which is part of the sum, and in the pseudo-header.
      bytes.store16(place.updated(checksum, ChecksumDelta(newSum, replacing: oldSum) + growth), field)
    }
    return .rewritten(length: messageStart &+ newLength)
  }

  private func setLengths(_ bytes: PacketBytes, _ packet: InnerPacket, udpLength: Int, _ growth: ChecksumDelta) {
    bytes.store16(UInt16(truncatingIfNeeded: udpLength), packet.transportOffset &+ 4)
    let total = packet.transportOffset &+ udpLength
    if packet.isV4 {
      bytes.store16(UInt16(truncatingIfNeeded: total), 2)
      bytes.store16(growth.applied(toChecksum: bytes.load16(10)), 10)
    } else {
      bytes.store16(UInt16(truncatingIfNeeded: total &- 40), 4)
    }
  }

  /// Rewrites a message in place.
  /// - Parameters:
  ///   - bytes: the message and the room behind it.
  ///   - length: of the message.
  /// - Returns: with `rewritten`, the message's new length.
  package func rewrite(message bytes: PacketBytes, length: Int) -> DNSOutcome {
    guard var message = DNSMessage(bytes.slice(0, length)), message.isQuery else { return .untouched }
    var plan = DNSPlan()
    guard plan.read(&message, self), plan.mentions > 0 else { return .untouched }
    if plan.isSigned || message.isResponse && message.isAuthenticData && plan.wantsDNSSEC { return .signed }
    guard !plan.isUnfit, plan.fits(in: bytes.count, length: length), plan.walk(message, self, apply: false) else {
      return .unfit
    }
    _ = plan.walk(message, self, apply: true)
    if message.isResponse { message.clearAuthenticData() }
    return .rewritten(length: plan.move(bytes, length: length))
  }
}

/// What is to be changed in a message: found in a first walk, done in a second.
private struct DNSPlan: ~Copyable {
  /// The name of an address, where it stands.
  struct Edit: BitwiseCopyable {
    var start = 0
    var old = IPAddress(v4: 0)
    var new = IPAddress(v4: 0)
    var oldLength: Int { ReverseName.length(of: old) }
    var growth: Int { ReverseName.length(of: new) &- oldLength }
  }

  /// In the order of their places.
  private var edits = InlineArray<8, Edit>(repeating: Edit())
  private var count = 0
  /// Translated hosts that are named.
  var mentions = 0
  var isSigned = false
  var isUnfit = false
  /// The DO bit (RFC 3225).
  var wantsDNSSEC = false

  // MARK: Reading

  /// False when the message is malformed or truncated.
  mutating func read(_ message: inout DNSMessage, _ rewriting: borrowing AddressRewriting) -> Bool {
    var place = DNSMessage.headerLength
    for _ in 0..<message.questions {
      guard let name = message.name(at: place), name.end &+ 4 <= message.bytes.count else { return false }
      note(name, at: place, message, rewriting)
      place = name.end &+ 4
    }
    for _ in 0..<message.records {
      guard let name = message.name(at: place), let record = message.record(at: name.end) else { return false }
      note(name, at: place, message, rewriting)
      switch record.type {
      case DNSMessage.RecordType.a, DNSMessage.RecordType.aaaa:
        if DNSPlan.translated(record, message, rewriting) != nil { mentions &+= 1 }
      case DNSMessage.RecordType.sig, DNSMessage.RecordType.rrsig, DNSMessage.RecordType.tsig: isSigned = true
      case DNSMessage.RecordType.opt: wantsDNSSEC = wantsDNSSEC || record.timeToLive & 0x8000 != 0
      default:
        let (skip, names) = DNSMessage.namesInData(record.type)
        var inner = record.data.lowerBound &+ skip
        for _ in 0..<names {
          guard let name = message.name(at: inner), name.end <= record.data.upperBound else { return false }
          note(name, at: inner, message, rewriting)
          inner = name.end
        }
      }
      place = record.data.upperBound
    }
    return true
  }

  /// Takes note of a name that is the name of a translated address.
  private mutating func note(
    _ name: DNSMessage.Name, at place: Int, _ message: borrowing DNSMessage, _ rewriting: borrowing AddressRewriting
  ) {
    let isV4 = name.labels == 6
    guard isV4 || name.labels == 34, message.isLabel(at: name.last, DNSMessage.Label.arpa),
      message.isLabel(at: name.lastButOne, isV4 ? DNSMessage.Label.inAddr : DNSMessage.Label.ip6),
      let old = ReverseName.parse(message.bytes, name, isV4: isV4),
      let new = rewriting.translateMentioned(old), new != old
    else { return }
    mentions &+= 1
    // A pointer to a name that is rewritten already, most often to the question's.
    for index in 0..<count where edits[index].start == name.start { return }
    guard name.start == place, name.contiguous >= ReverseName.labels(isV4: isV4), count < edits.count else {
      isUnfit = true
      return
    }
    edits[count] = Edit(start: place, old: old, new: new)
    count &+= 1
  }

  /// The new address of an A or AAAA record; nil where it stays.
  private static func translated(
    _ record: DNSMessage.Record, _ message: borrowing DNSMessage, _ rewriting: borrowing AddressRewriting
  ) -> IPAddress? {
    guard record.recordClass == DNSMessage.internet else { return nil }
    let bytes = message.bytes
    let place = record.data.lowerBound
    if record.type == DNSMessage.RecordType.a, record.data.count == 4 {
      return rewriting.translateMentioned(IPAddress(v4: bytes.load32(place)))
    }
    if record.type == DNSMessage.RecordType.aaaa, record.data.count == 16 {
      return rewriting.translateMentioned(IPAddress(v6High: bytes.load64(place), low: bytes.load64(place &+ 8)))
    }
    return nil
  }

  // MARK: Writing

  /// Whether the message fits its room at every step of `move`.
  func fits(in capacity: Int, length: Int) -> Bool {
    var total = length
    for index in stride(from: count &- 1, through: 0, by: -1) {
      total &+= edits[index].growth
      if total > capacity { return false }
    }
    return true
  }

  /// Everything but the names of addresses themselves: their neighbours' pointers, the lengths of data that they
  /// stand in, addresses in records. With `apply` false nothing is written.
  /// - Returns: false when a pointer would lead nowhere.
  func walk(_ message: borrowing DNSMessage, _ rewriting: borrowing AddressRewriting, apply: Bool) -> Bool {
    let bytes = message.bytes
    var place = DNSMessage.headerLength
    for _ in 0..<message.questions {
      guard let end = relocatePointer(bytes, ofName: place, apply: apply) else { return false }
      place = end &+ 4
    }
    for _ in 0..<message.records {
      guard let end = relocatePointer(bytes, ofName: place, apply: apply), let record = message.record(at: end) else {
        return false
      }
      let (skip, names) = DNSMessage.namesInData(record.type)
      var inner = record.data.lowerBound &+ skip
      for _ in 0..<names {
        guard let end = relocatePointer(bytes, ofName: inner, apply: apply) else { return false }
        inner = end
      }
      let length = record.data.count &+ growth(in: record.data)
      guard length <= 0xFFFF else { return false }
      if apply {
        bytes.store16(UInt16(truncatingIfNeeded: length), record.lengthPlace)
        if let address = DNSPlan.translated(record, message, rewriting) {
          DNSPlan.write(address, bytes, at: record.data.lowerBound)
        }
      }
      place = record.data.upperBound
    }
    return true
  }

  private static func write(_ address: IPAddress, _ bytes: PacketBytes, at place: Int) {
    if address.isV4 {
      bytes.store32(address.v4, place)
    } else {
      bytes.store64(address.high, place)
      bytes.store64(address.low, place &+ 8)
    }
  }

  private func growth(in range: Range<Int>) -> Int {
    var growth = 0
    for index in 0..<count where range.contains(edits[index].start) { growth &+= edits[index].growth }
    return growth
  }

  /// Corrects the pointer that the name at `place` ends in, if it does.
  /// - Returns: the first byte behind the name; nil when what it points to will not be there.
  private func relocatePointer(_ bytes: PacketBytes, ofName place: Int, apply: Bool) -> Int? {
    var at = place
    while at < bytes.count {
      let count = bytes[at]
      if count == 0 { return at &+ 1 }
      if count >= 0xC0 {
        guard at &+ 2 <= bytes.count, let target = relocated(Int(bytes.load16(at) & 0x3FFF), bytes), target <= 0x3FFF
        else { return nil }
        if apply { bytes.store16(0xC000 | UInt16(truncatingIfNeeded: target), at) }
        return at &+ 2
      }
      at &+= 1 &+ Int(count)
    }
    return nil
  }

  /// Where a label will stand that stands at `place` now.
  private func relocated(_ place: Int, _ bytes: PacketBytes) -> Int? {
    var shift = 0
    for index in 0..<count {
      let edit = edits[index]
      if place <= edit.start { break }
      if place < edit.start &+ edit.oldLength {
        // Inside the number: the same label of the new one.
        for label in 0..<ReverseName.labels(isV4: edit.old.isV4)
        where edit.start &+ ReverseName.offset(ofLabel: label, in: edit.old) == place {
          return edit.start &+ ReverseName.offset(ofLabel: label, in: edit.new) &+ shift
        }
        return nil
      }
      shift &+= edit.growth
    }
    return place &+ shift
  }

  /// Rewrites the names of addresses, the last first, moving what is behind them.
  /// - Returns: the message's new length.
  func move(_ bytes: PacketBytes, length: Int) -> Int {
    var total = length
    for index in stride(from: count &- 1, through: 0, by: -1) {
      let edit = edits[index]
      let behind = edit.start &+ edit.oldLength
      if edit.growth != 0 { bytes.copy(bytes.slice(behind, total &- behind), to: behind &+ edit.growth) }
      ReverseName.write(edit.new, to: bytes, at: edit.start)
      total &+= edit.growth
    }
    return total
  }
}
