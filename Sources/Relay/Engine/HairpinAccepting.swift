import Glibc
import PacketIO
import Transports

/// Streams that have yet to prove whose they are: accepted, read until they have, and closed when they take too long or
/// others need the room.
extension HairpinEngine {
  /// Bytes that such a stream may send without their making a message.
  private static let unprovenBytes = 2 * HairpinMessage.mostBytes

  /// Has streams to a side's port accepted.
  mutating func accept(_ side: Int) {
    io.accept(sides[side].listener, token: HairpinEngine.token(.accept, side, marks[side].port))
  }

  mutating func completeAccept(_ completion: Completion, at port: UnprovenStream.Port) {
    if !completion.more { acceptAgain(port, hasFailed: completion.result < 0) }
    guard completion.result >= 0 else { return }
    guard port != .gone, let sender = TCPSocket.remote(completion.result) else {
      return KernelSocket.close(completion.result)
    }
    if let victim = unproven.victim(for: sender.address) { refuse(victim) }
    let deadline = clock.monotonic.adding(nanoseconds: options.proofSeconds * 1_000_000_000)
    guard let place = unproven.add(completion.result, port, sender, deadline: deadline) else {
      return KernelSocket.close(completion.result)
    }
    awaitWords(of: place)
  }

  /// The ring accepts no more at a port. With no descriptor left, for one: then one that has not proved anything makes
  /// room, and the rest waits a moment.
  private mutating func acceptAgain(_ port: UnprovenStream.Port, hasFailed: Bool) {
    if hasFailed, port != .gone, let victim = unproven.oldestOfMost { refuse(victim) }
    switch port {
    case .gone: break
    case .control(let listen):
      guard controls.indices.contains(listen) else { return }
      controls[listen].isAccepting = false
      isHeldUp = isHeldUp || hasFailed
    case .side(let side): if hasFailed { heldUp.append(side) } else { accept(side) }
    }
  }

  private mutating func awaitWords(of place: Int) {
    io.pollReadable(
      unproven[place].descriptor, token: HairpinEngine.token(.unproven, place, unproven[place].number))
  }

  // MARK: Ends

  private mutating func refuse(_ place: Int) {
    statistics[.streamsRefused] += 1
    drop(unproven: place)
  }

  /// Closes those that had their time.
  mutating func sweepUnproven() {
    for place in 0..<unproven.capacity where unproven.isOpen(place) {
      guard clock.monotonic >= unproven[place].deadline else { continue }
      statistics[.streamsTooSlow] += 1
      drop(unproven: place)
    }
  }

  /// A side's port goes, and who came to it.
  mutating func dropUnproven(of side: Int) {
    for place in 0..<unproven.capacity where unproven.isOpen(place) && unproven[place].port == .side(side) {
      drop(unproven: place)
    }
  }

  mutating func drop(unproven place: Int) {
    io.cancel(HairpinEngine.token(.unproven, place, unproven[place].number))
    io.ring.submit()
    TCPSocket.resetOnClose(unproven[place].descriptor)
    KernelSocket.close(unproven[place].descriptor)
    unproven.remove(place)
  }

  private mutating func malformed(_ place: Int) {
    statistics[.streamsMalformed] += 1
    drop(unproven: place)
  }

  // MARK: What they say

  /// Reads what such a stream says.
  mutating func serveUnproven(_ place: Int) {
    guard unproven.isOpen(place) else { return }
    let earlier = unproven.begun(place)
    let space = self.space.input
    space.copy(earlier, to: 0)
    let count = TCPSocket.receive(
      unproven[place].descriptor, into: space.slice(earlier.count, HairpinEngine.unprovenBytes))
    if count == -EAGAIN || count == -EINTR { return awaitWords(of: place) }
    guard count > 0 else {
      KernelSocket.close(unproven[place].descriptor)
      return unproven.remove(place)
    }
    let bytes = space.slice(0, earlier.count + count)
    var offset = 0
    while true {
      switch unproven.next(place, bytes, &offset) {
      case .message(let start, let length):
        let begin = start - Superpacket.markerLength
        guard offset - begin <= HairpinMessage.mostBytes else { return malformed(place) }
        if answer(bytes.slice(begin, length + Superpacket.markerLength).array(), unproven: place) {
          return adopt(place, rest: bytes.dropFirst(offset).array())
        }
        guard unproven.isOpen(place) else { return }
      case .keepAlive: continue
      case .incomplete:
        let rest = bytes.dropFirst(offset).array()
        guard rest.count <= HairpinEngine.unprovenBytes else { return malformed(place) }
        unproven.keep(rest, of: place)
        return awaitWords(of: place)
      case .packets, .tooShort, .fault: return malformed(place)
      }
    }
  }

  /// Answers a message.
  /// - Returns: whether the stream has proved itself.
  private mutating func answer(_ bytes: [UInt8], unproven place: Int) -> Bool {
    let stream = unproven[place]
    let (proofs, shown) = (statistics[.proved], statistics[.accepted] + statistics[.challenges])
    let answer: [UInt8]?
    switch stream.port {
    case .control(let listen): answer = self.answer(bytes, stream.sender, listen: listen, encapsulation: .tcp)
    case .side(let side): answer = self.answer(bytes, stream.sender, side: side, isHolder: false)
    case .gone: answer = nil
    }
    // Who says what nobody answers has no business here.
    guard let answer, TCPSocket.sends(stream.descriptor, HairpinEngine.record(answer)) else {
      drop(unproven: place)
      return false
    }
    if statistics[.accepted] + statistics[.challenges] != shown { unproven.markShown(place) }
    return statistics[.proved] != proofs
  }

  /// Makes a stream its side's, in the place of an earlier one.
  private mutating func adopt(_ place: Int, rest: [UInt8]) {
    let stream = unproven[place]
    guard case .side(let side) = stream.port else { return }
    closeStream(side)
    unproven.remove(place)
    sides[side].isProven = true
    sides[side].descriptor = stream.descriptor
    sides[side].framer = stream.framer
    carries[side] = rest
    TCPSocket.prepareStream(stream.descriptor, waits: false)
    schedule.markReady(side, priority: sides[side].priority)
  }
}
