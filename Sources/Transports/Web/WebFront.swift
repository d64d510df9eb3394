package import PacketIO

/// What an encrypted stream gets that does not begin as ours do (RFC 9329 §4): the answer of a web server that has no
/// pages, so that a browser, or who looks at the port, finds what they would on any other; or a web server, to whom it is
/// handed on.
///
/// 1. `begin` takes a stream over; 2. `take` hands on what comes, or reads a request and seals the answer with a farewell,
/// after which this side says nothing more; 3. `sent` then ends that direction, and what still comes is left unread until
/// the other end closes, or the stream has had its time as any stranger's.
package struct WebFront {
  private enum Progress {
    case reading(WebRequest)
    case handedOn
    case answered
  }

  private var streams: [Int: Progress] = [:]
  private var handOn: WebHandOn?
  private var answered: UInt64 = 0

  /// - Parameters:
  ///   - server: the path of a web server's Unix socket; nil: there is none.
  ///   - owner: a number for `Token.owner` that nobody else on the ring has; unused where there is no server.
  package init(server: String?, owner: UInt8) { handOn = server.map { WebHandOn($0, owner: owner) } }

  /// Whether the stream at a place is one of these.
  package func serves(_ place: Int) -> Bool { !streams.isEmpty && streams[place] != nil }

  /// Whether nothing is to be received from it now.
  package func holdsBack(_ place: Int) -> Bool { !streams.isEmpty && handOn?.holdsBack(place) ?? false }

  /// Whether it is a completion for `complete`.
  package func owns(_ completion: Completion) -> Bool { completion.token.owner == handOn?.owner }

  /// Takes a stream over, with the bytes that have come.
  /// - Returns: false: it is to be closed.
  package mutating func begin(
    _ place: Int, _ bytes: PacketBytes, _ table: inout StreamTable, ring: inout Ring, now: MonotonicTime
  ) -> Bool {
    guard handOn != nil else {
      streams[place] = .reading(WebRequest())
      return take(place, bytes, &table, ring: &ring, now: now)
    }
    guard
      handOn?.begin(place, from: table[place].remote.address, of: table.capacity, ring: &ring, now: now) ?? false
    else {
      say(WebRequest.unavailable(date: WebDate.now), place, &table)
      return true
    }
    streams[place] = .handedOn
    // From now on the web server says how long.
    table.authenticate(place)
    return take(place, bytes, &table, ring: &ring, now: now)
  }

  /// Takes what came.
  /// - Returns: false: the stream is to be closed.
  package mutating func take(
    _ place: Int, _ bytes: PacketBytes, _ table: inout StreamTable, ring: inout Ring, now: MonotonicTime
  ) -> Bool {
    switch streams[place] {
    case .handedOn: return handOn?.take(place, bytes, ring: &ring, now: now) ?? false
    case .answered, nil: return true
    case .reading(var request):
      if let answer = request.take(bytes, date: WebDate.now) {
        answered &+= 1
        say(answer, place, &table)
      } else {
        streams[place] = .reading(request)
      }
      return true
    }
  }

  private mutating func say(_ answer: [UInt8], _ place: Int, _ table: inout StreamTable) {
    streams[place] = .answered
    table.seal(place, answer)
    table.sealFarewell(place)
  }

  /// The web server takes or says something.
  package mutating func complete(
    _ completion: Completion, _ table: inout StreamTable, ring: inout Ring, pool: BufferPool, now: MonotonicTime
  ) -> WebHandOn.Step? {
    let step = handOn?.complete(completion, &table, ring: &ring, pool: pool, now: now)
    if case .ended(let place) = step { streams[place] = .answered }
    return step
  }

  /// What was sealed may have gone.
  package mutating func sent(_ place: Int, _ table: borrowing StreamTable, ring: inout Ring) {
    guard serves(place), !table.hasSealed(place) else { return }
    if case .answered = streams[place] { TCPSocket.endWriting(table[place].descriptor) }
    if case .handedOn = streams[place] { handOn?.sent(place, ring: &ring) }
  }

  /// Places of streams that are to be closed because they say nothing.
  package mutating func sweep(_ table: borrowing StreamTable, ring: inout Ring, now: MonotonicTime) -> [Int] {
    streams.isEmpty ? [] : handOn?.sweep(table, ring: &ring, now: now) ?? []
  }

  /// The stream is closed.
  package mutating func forget(_ place: Int, ring: inout Ring) {
    guard serves(place) else { return }
    streams[place] = nil
    handOn?.end(place, ring: &ring)
  }

  package var counters: [TransportCounter] {
    [
      TransportCounter(name: "http-answered", value: answered),
      TransportCounter(name: "http-handed-on", value: handOn?.handedOn ?? 0),
      TransportCounter(name: "http-hand-on-failed", value: handOn?.failed ?? 0),
    ]
  }
}
