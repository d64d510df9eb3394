package import PacketIO

/// The streams by their places, and who among them has yet to say who he is.
///
/// Those are few, each has a deadline, and when there are too many the oldest makes room: of the origin that has its
/// share already, else of the origin that has most. Those that have presented something count for themselves, so that
/// outsiders never drive them out.
///
/// Places are shared by peer (`Shares`): a peer may have a few accepted streams, whose oldest gives way to its newest;
/// when all places are taken, the oldest goes that was accepted of the peer that has most. A stranger drives out no peer.
package struct StreamTable: ~Copyable {
  /// How many streams that are not authenticated there may be.
  package struct Limits: Sendable {
    /// At a time; for one more, one of them is closed.
    package var unauthenticated: Int
    /// From one address, of IPv6 from one /64, and four times as many from one /56.
    package var perOrigin: Int
    /// Whether an origin that has its share loses its oldest for one more; else the newcomer is refused.
    package var evictsWithinOrigin: Bool
    /// Accepted streams of one peer.
    package var perPeer = Int.max

    package init(unauthenticated: Int, perOrigin: Int, evictsWithinOrigin: Bool, perPeer: Int = Int.max) {
      self.perPeer = perPeer
      self.unauthenticated = max(unauthenticated, 1)
      self.perOrigin = max(min(perOrigin, unauthenticated), 1)
      self.evictsWithinOrigin = evictsWithinOrigin
    }
  }

  /// Whether one more may come.
  package enum Room: Equatable {
    case free
    /// The stream at that place has to go first.
    case evict(Int)
    /// Its origin has its share.
    case refused
  }

  /// As far as places were ever used, so that those which never are take no memory.
  @usableFromInline var streams: FixedArray<Stream>
  /// Where each is being connected to: the kernel reads it with the submission, which may be much later when the worker
  /// has not begun yet.
  var names: FixedArray<SocketName>
  /// What encrypts them.
  var sessions: TLSSessions
  private var free: FixedArray<Int32>
  private let limits: Limits
  private var held: Shares
  private var nextNumber: UInt64 = 1
  /// Streams that are not authenticated, and the first and last of them in the order of their coming.
  package private(set) var unauthenticated = 0
  private var first: Int32 = -1
  private var last: Int32 = -1
  /// The same by origin: those that have presented nothing, and the others.
  private var outsiders: [IPAddress: Int] = [:]
  /// The former of IPv6 by /56, which one customer may have.
  private var sites: [IPAddress: Int] = [:]
  private var presenters: [IPAddress: Int] = [:]

  /// - Parameters:
  ///   - dials: whether any are dialled.
  ///   - encryption: how they are encrypted; nil: they are not.
  package init(capacity: Int, limits: Limits, dials: Bool, encryption: StreamEncryption? = nil) {
    sessions = TLSSessions(
      streams: capacity, server: encryption?.server, client: encryption?.client,
      handshakes: encryption?.handshakes ?? 1)
    streams = FixedArray(capacity: capacity)
    names = FixedArray(repeating: SocketName(Endpoint.unspecified), count: dials ? capacity : 0)
    free = FixedArray(capacity: capacity)
    self.limits = limits
    held = Shares(.streams, capacity: capacity)
  }

  /// Who has how many.
  package func shares() -> ShareReport { held.report() }

  @inlinable package subscript(_ place: Int) -> Stream {
    @inline(__always) _read { yield streams[place] }
    @inline(__always) _modify { yield &streams[place] }
  }

  /// Streams that are in use.
  package var count: Int { streams.count - free.count }
  package var capacity: Int { streams.capacity }
  /// Places that were ever used.
  package var used: Int { streams.count }

  /// Whether the stream of that number is still the one at `place`.
  package func isCurrent(_ place: Int, _ number: UInt64) -> Bool {
    place < used && streams[place].state != .free && streams[place].number == number
  }

  // MARK: Beginning

  /// Takes a place for a stream that is dialled; nil when all are taken.
  package mutating func dialled(_ descriptor: Int32, to remote: Endpoint, destination: Int, deadline: MonotonicTime)
    -> Int?
  {
    guard let place = take(descriptor, remote, deadline, for: .dialled(remote)) else { return nil }
    streams[place].state = .connecting
    streams[place].isEncrypted = sessions.encrypts(dialled: true)
    streams[place].standing = .authenticated
    streams[place].framer = RecordFramer(isOriginator: true)
    streams[place].destination = Int32(truncatingIfNeeded: destination)
    return place
  }

  /// Whether a stream from that address may be accepted, and who makes room for it.
  package func room(for address: IPAddress) -> Room {
    let origin = Stream.origin(address)
    if let site = Stream.site(address), sites[site] ?? 0 >= 4 * limits.perOrigin {
      guard limits.evictsWithinOrigin else { return .refused }
      return oldest { Stream.site($0.remote.address) == site && $0.standing == .unauthenticated }.map { .evict($0) }
        ?? .refused
    }
    if outsiders[origin] ?? 0 >= limits.perOrigin {
      guard limits.evictsWithinOrigin else { return .refused }
      return oldest { $0.origin == origin && $0.standing == .unauthenticated }.map { .evict($0) } ?? .refused
    }
    guard unauthenticated >= limits.unauthenticated else { return .free }
    return oldestOfMost.map { .evict($0) } ?? .free
  }

  /// Takes a place for a stream that was accepted; nil when all are taken.
  /// - Parameter isEncrypted: it is, where the table's streams are at all.
  package mutating func accepted(
    _ descriptor: Int32, from remote: Endpoint, isEncrypted: Bool = true, deadline: MonotonicTime
  ) -> Int? {
    guard let place = take(descriptor, remote, deadline, for: Holder(strangerAt: remote.address)) else { return nil }
    streams[place].isEncrypted = isEncrypted && sessions.encrypts(dialled: false)
    streams[place].state = streams[place].isEncrypted ? .securing : .open
    if streams[place].isEncrypted { sessions.accept(place) }
    streams[place].earlier = last
    if last >= 0 { streams[Int(last)].later = Int32(truncatingIfNeeded: place) }
    last = Int32(truncatingIfNeeded: place)
    if first < 0 { first = last }
    unauthenticated += 1
    outsiders[streams[place].origin, default: 0] += 1
    if let site = Stream.site(remote.address) { sites[site, default: 0] += 1 }
    return place
  }

  private mutating func take(
    _ descriptor: Int32, _ remote: Endpoint, _ deadline: MonotonicTime, for holder: Holder
  ) -> Int? {
    guard let place = freePlace() else {
      held.refuse(holder)
      return nil
    }
    held.add(to: holder)
    // In the list of those to be armed it may be still, for the one before.
    let isUnarmed = streams[place].isUnarmed
    streams[place] = Stream()
    streams[place].isUnarmed = isUnarmed
    streams[place].holder = holder
    streams[place].descriptor = descriptor
    streams[place].remote = remote
    streams[place].deadline = deadline
    streams[place].number = nextNumber
    nextNumber += 1
    return place
  }

  private mutating func freePlace() -> Int? {
    if let place = free.popLast() { return Int(place) }
    return streams.tryAppend(Stream()) ? streams.count - 1 : nil
  }

  // MARK: Standing

  /// The stream has presented something that an outsider does not have. Of one origin only so many count for that.
  package mutating func present(_ place: Int) {
    let origin = streams[place].origin
    guard streams[place].isUnauthenticated, streams[place].standing == .unauthenticated,
      presenters[origin] ?? 0 < limits.perOrigin
    else { return }
    streams[place].standing = .presented
    removeOutsider(place)
    presenters[origin, default: 0] += 1
  }

  /// The stream belongs to a partner.
  package mutating func authenticate(_ place: Int) {
    guard streams[place].isUnauthenticated else { return }
    unlink(place)
    streams[place].standing = .authenticated
  }

  /// The stream belongs to that peer. Returns the place of one that has to go, if he has more than he may have.
  package mutating func authenticate(_ place: Int, as holder: Holder) -> Int? {
    authenticate(place)
    guard streams[place].holder != holder else { return nil }
    held.move(1, from: streams[place].holder, to: holder)
    streams[place].holder = holder
    guard held.held(by: holder) > limits.perPeer, let oldest = oldestAccepted(of: holder), oldest != place else {
      return nil
    }
    held.refuse(holder)
    return oldest
  }

  /// The place of a stream that has to go, so that this side may dial one more; nil: there is room, or nobody has too
  /// many.
  package mutating func evictedByDialling(_ remote: Endpoint) -> Int? {
    guard count >= capacity else { return nil }
    return oldestAccepted(of: held.victim(for: .dialled(remote)))
  }

  private func oldestAccepted(of holder: Holder) -> Int? {
    var oldest: Int?
    for place in 0..<used
    where streams[place].state == .open && streams[place].holder == holder && streams[place].destination == nil {
      if oldest.map({ streams[place].number < streams[$0].number }) ?? true { oldest = place }
    }
    return oldest
  }

  private mutating func unlink(_ place: Int) {
    let stream = streams[place]
    if stream.earlier >= 0 { streams[Int(stream.earlier)].later = stream.later } else { first = stream.later }
    if stream.later >= 0 { streams[Int(stream.later)].earlier = stream.earlier } else { last = stream.earlier }
    (streams[place].earlier, streams[place].later) = (-1, -1)
    unauthenticated -= 1
    if stream.standing == .presented {
      StreamTable.takeOne(&presenters, stream.origin)
    } else {
      removeOutsider(place)
    }
  }

  private mutating func removeOutsider(_ place: Int) {
    StreamTable.takeOne(&outsiders, streams[place].origin)
    if let site = Stream.site(streams[place].remote.address) { StreamTable.takeOne(&sites, site) }
  }

  private static func takeOne(_ counts: inout [IPAddress: Int], _ origin: IPAddress) {
    guard let count = counts[origin], count > 1 else {
      counts[origin] = nil
      return
    }
    counts[origin] = count - 1
  }

  /// One that is not authenticated and has had its time; nil when there is none. All have the same time.
  package func expired(_ now: MonotonicTime) -> Int? {
    first >= 0 && now >= streams[Int(first)].deadline ? Int(first) : nil
  }

  /// The oldest of the origin that has most outsiders, or where there are none, most others.
  package var oldestOfMost: Int? {
    let (counts, standing) = outsiders.isEmpty ? (presenters, Stream.Standing.presented) : (outsiders, .unauthenticated)
    guard let most = counts.values.max() else { return nil }
    return oldest { $0.standing == standing && counts[$0.origin] == most }
  }

  /// The oldest that is not authenticated and for which it is so.
  private func oldest(_ matches: (Stream) -> Bool) -> Int? {
    var place = first
    while place >= 0 {
      if matches(streams[Int(place)]) { return Int(place) }
      place = streams[Int(place)].later
    }
    return nil
  }

  /// Places of all that are not authenticated.
  package var allUnauthenticated: [Int] {
    var places: [Int] = []
    var place = first
    while place >= 0 {
      places.append(Int(place))
      place = streams[Int(place)].later
    }
    return places
  }

  // MARK: End

  /// The stream carries nothing any more.
  package mutating func beginClosing(_ place: Int) {
    if streams[place].isUnauthenticated { unlink(place) }
    streams[place].state = .closing
  }

  /// Closes the descriptor, of which the kernel holds nothing any more, and gives the place back.
  package mutating func release(_ place: Int) {
    if streams[place].descriptor >= 0 { KernelSocket.close(streams[place].descriptor) }
    if streams[place].isEncrypted { sessions.end(place) }
    held.give(from: streams[place].holder)
    streams[place].descriptor = -1
    streams[place].state = .free
    free.append(Int32(truncatingIfNeeded: place))
  }
}
