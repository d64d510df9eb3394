import Glibc
import PacketIO
import Transports

/// The proxy's control ports: who presents a genuine ticket, and proves to be one of its gateways, gets a port.
///
/// Nothing is kept, and nothing longer than the request sent, before a cookie has come back and both signatures are
/// right.
extension HairpinEngine {
  /// Answers what came to a control port.
  mutating func serveControl(_ index: Int, _ message: HairpinIO.Message) {
    guard !message.isTruncated, let sender = SocketName.endpoint(message.name) else {
      statistics[.truncated] += 1
      return
    }
    let name = SocketName(sender)
    var offset = 0
    while offset < message.bytes.count {
      let length = min(message.segmentSize, message.bytes.count - offset)
      if length <= HairpinMessage.mostBytes,
        let answer = answer(message.bytes.slice(offset, length).array(), sender, listen: index, encapsulation: .udp)
      {
        _ = UDPSocket.send(controls[index].datagrams, answer, to: name)
      } else if length > HairpinMessage.mostBytes {
        statistics[.malformed] += 1
      }
      offset += length
    }
  }

  /// Where the kernel hands nothing over: reads one batch; the rest waits for the next turn.
  mutating func pullControl(_ index: Int) {
    _ = io.pull(controls[index].datagrams, limit: HairpinIO.pullCapacity)
    for number in 0..<io.pulledCount {
      let message = io.pulledMessage(number)
      serveControl(index, message)
      io.pool.release(message.buffer)
    }
  }

  /// What is answered to a message on a control port; nil: nothing.
  mutating func answer(_ bytes: [UInt8], _ sender: Endpoint, listen: Int, encapsulation: Encapsulation) -> [UInt8]? {
    switch HairpinMessage(bytes) {
    case .hello(let nonce, .zero):
      statistics[.hellos] += 1
      let cookie = cookies.cookie(sender, nonce: nonce, port: options.listen[listen].port, now: clock.monotonic)
      return HairpinMessage.challenge(nonce: nonce, cookie: cookie).encoded
    case .present(let present):
      let port = options.listen[listen].port
      guard
        cookies.isValid(present.cookie, sender, nonce: present.nonce, port: port, now: clock.monotonic)
      else {
        statistics[.badCookie] += 1
        return nil
      }
      guard mayCheckSignature() else { return nil }
      switch admit(present, listen: listen) {
      case .success(let side):
        statistics[.accepted] += 1
        let left = hairpins[side / 2].map { $0.life.lastSecond - clock.wall } ?? 0
        return HairpinMessage.accepted(
          nonce: present.nonce, token: sides[side].token, port: sides[side].port, silence: options.silence,
          secondsLeft: UInt32(clamping: left)
        ).encoded
      case .failure(let reason):
        count(reason)
        return HairpinMessage.refused(nonce: present.nonce, reason: reason.rawValue).encoded
      }
    default:
      statistics[.malformed] += 1
      return nil
    }
  }

  private mutating func count(_ reason: HairpinReason) {
    switch reason {
    case .forged: statistics[.refusedForged] += 1
    case .expired: statistics[.refusedExpired] += 1
    case .used: statistics[.refusedUsed] += 1
    default: statistics[.refusedOther] += 1
    }
  }

  /// Signatures take time; a flood of them must not take all of it.
  mutating func mayCheckSignature() -> Bool {
    guard signatures.available(now: clock.monotonic) >= 1 else {
      statistics[.tooManySignatures] += 1
      return false
    }
    signatures.take(1)
    return true
  }

  /// The side that the ticket's holder may use now.
  private mutating func admit(_ present: HairpinMessage.Present, listen: Int) -> Result<Int, HairpinReason> {
    guard let signed = SignedHairpinTicket(present.ticket) else { return .failure(.malformed) }
    let ticket = signed.ticket
    let index = live[ticket.number]
    let refusal = admission.judge(
      signed, encapsulation: present.encapsulation, end: present.end, now: clock.wall, isLive: index != nil,
      reserved: live.count)
    if let refusal { return .failure(refusal) }
    // A genuine number with other contents: a control system's mistake, or worse.
    if let index, hairpins[index]?.life.ticket != ticket { return .failure(.used) }
    let proof = HairpinMessage.proof(of: present, ticket: ticket.number)
    guard ticket[present.end].key.verifies(present.signature, of: proof) else { return .failure(.forged) }
    guard let hairpin = index ?? begin(ticket) else { return .failure(.full) }
    let side = 2 * hairpin + Int(present.end.rawValue)
    if sides[side].isAllocated {
      // Its holder comes back: the same port again, unless it wants another kind.
      if sides[side].encapsulation == present.encapsulation, Int(sides[side].listen) == listen { return .success(side) }
      release(side)
    }
    if let reason = allocate(side, encapsulation: present.encapsulation, listen: listen, ticket) {
      if index == nil { finish(hairpin, .failed) }
      return .failure(reason)
    }
    return .success(side)
  }

  mutating func begin(_ ticket: HairpinTicket) -> Int? {
    guard let index = freeHairpins.popLast().map({ Int($0) }) else { return nil }
    let earlier = admission.memory[ticket.number]
    let now = clock.monotonic
    hairpins[index] = Hairpin(
      life: HairpinLife(
        ticket, started: earlier?.started ?? clock.wall, silence: UInt64(options.silence), now: now),
      started: clock.wall)
    usage[index] = Usage(
      isOpen: true, bytes: earlier?.bytes ?? 0, byteLimit: ticket.byteLimit == 0 ? .max : ticket.byteLimit,
      lastData: now)
    for side in [2 * index, 2 * index + 1] {
      sides[side] = Side(
        priority: ticket.priority,
        bucket: TokenBucket(bitRate: ticket.bandwidth, burst: UInt64(ticket.burst), now: now), lastHeard: now)
    }
    live[ticket.number] = index
    return index
  }

  /// Opens a port for a side. Nil, or why there is none.
  mutating func allocate(
    _ side: Int, encapsulation: Encapsulation, listen: Int, _ ticket: HairpinTicket
  ) -> HairpinReason? {
    let address = options.listen[listen].address
    let count = UInt32(options.ports.upperBound - options.ports.lowerBound) + 1
    let start = UInt32.random(in: 0..<count, using: &random)
    // A full range is noticed soon: of a range that is nine tenths full, one try in ten succeeds.
    for attempt in 0..<min(count, 64) {
      let port = options.ports.lowerBound + UInt16((start + attempt) % count)
      let endpoint = Endpoint(address: address, port: port)
      let descriptor =
        encapsulation == .udp
        ? UDPSocket.open(endpoint, waits: true, bufferSize: HairpinEngine.socketBuffer) : TCPSocket.listen(endpoint)
      if descriptor == -EADDRINUSE { continue }
      guard descriptor >= 0 else { return .noPort }
      if encapsulation == .udp { sides[side].descriptor = descriptor } else { sides[side].listener = descriptor }
      sides[side].encapsulation = encapsulation
      sides[side].port = port
      sides[side].listen = UInt8(truncatingIfNeeded: listen)
      sides[side].isAllocated = true
      sides[side].isProven = false
      sides[side].token = HairpinNumber.random(using: &random)
      sides[side].lastHeard = clock.monotonic
      if encapsulation == .udp { want(side) } else { accept(side) }
      reconsider(side ^ 1)
      return nil
    }
    return .noPort
  }

  // MARK: On an allocated port

  /// A message to a side's port that is no sealed packet.
  /// - Parameters:
  ///   - isHolder: it came from the proven address.
  /// - Returns: what is answered, to the same address.
  mutating func answer(_ bytes: [UInt8], _ sender: Endpoint, side: Int, isHolder: Bool) -> [UInt8]? {
    switch HairpinMessage(bytes) {
    case .hello(let nonce, let token) where token == sides[side].token:
      // Who does not know the token gets nothing: to a port scan the port looks as if nobody used it.
      statistics[.challenges] += 1
      let cookie = cookies.cookie(sender, nonce: nonce, port: sides[side].port, now: clock.monotonic)
      return HairpinMessage.challenge(nonce: nonce, cookie: cookie).encoded
    case .prove(let prove) where prove.token == sides[side].token:
      guard cookies.isValid(prove.cookie, sender, nonce: prove.nonce, port: sides[side].port, now: clock.monotonic)
      else {
        statistics[.badCookie] += 1
        return nil
      }
      guard mayCheckSignature(), let hairpin = hairpins[side / 2] else { return nil }
      let end: HairpinEnd = side % 2 == 0 ? .first : .second
      let proof = HairpinMessage.proof(
        of: prove, end: end, encapsulation: sides[side].encapsulation, ticket: hairpin.life.ticket.number)
      // Not older than the last: an address that was left behind cannot take the hairpin back.
      guard prove.sequence >= sides[side].sequence, hairpin.life.ticket[end].key.verifies(prove.signature, of: proof)
      else {
        statistics[.refusedForged] += 1
        return nil
      }
      sides[side].sequence = prove.sequence
      sides[side].name = SocketName(sender)
      sides[side].isProven = true
      sides[side].lastHeard = clock.monotonic
      hairpins[side / 2]?.life.proved(end, now: clock.monotonic)
      statistics[.proved] += 1
      return HairpinMessage.welcome(nonce: prove.nonce, partnerIsThere: sides[side ^ 1].isProven).encoded
    case .hold(let nonce) where isHolder:
      statistics[.holds] += 1
      return HairpinMessage.held(nonce: nonce, partnerIsThere: sides[side ^ 1].isProven).encoded
    default:
      statistics[isHolder ? .malformed : .stranger] += 1
      return nil
    }
  }
}
