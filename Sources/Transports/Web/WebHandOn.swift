import Glibc
import PacketIO

/// Streams that are handed on to a web server of this machine, by a Unix socket: bytes in the clear, both ways.
///
/// 1. `begin` connects; 2. `take` gives the server what came, and what it does not take waits, `mostWaiting` bytes at most,
/// while nothing more is received (`holdsBack`); 3. `complete` goes on when the server takes or says something: it is
/// read only when all that it said before has gone; 4. `end` closes. So each holds what fits into one send and some reads.
package struct WebHandOn {
  /// Streams at a time, where the table has twice as many places; of one origin, and of one site of IPv6, which has many.
  /// For one more than there may be at all, one of the origin that has most makes room.
  package static let most = 256
  static let mostOfOrigin = 64
  static let mostOfSite = 2 * mostOfOrigin
  /// Bytes that wait for the server; a stream that brings more, which it can only within what was received before it was
  /// held back, ends.
  private static let mostWaiting = 1 << 20
  /// Nanoseconds after which one that says nothing ends.
  private static let patience: UInt64 = 120_000_000_000
  private enum Kind: UInt8 { case readable, writable, cancellation }

  private struct Row {
    let place: Int
    let origin: IPAddress
    let site: IPAddress?
    let socket: Int32
    /// It makes room for others, with the next sweep.
    var isEvicted = false
    var waiting = ByteQueue()
    var isPolledReadable = false
    var isPolledWritable = false
    var hasEnded = false
    var lastMoved: MonotonicTime
  }

  /// What is to be done with a stream.
  package enum Step: Equatable {
    /// What was sealed is to be sent.
    case goOn(Int)
    /// The server has ended; what it said has been sealed.
    case ended(Int)
    /// It is to be closed.
    case failed(Int)
  }

  private let path: String
  let owner: UInt8
  /// By numbers that are never used again, which completions carry.
  private var rows: [Int: Row] = [:]
  private var numbers: [Int: Int] = [:]
  private var nextNumber = 0
  private(set) var handedOn: UInt64 = 0
  private(set) var failed: UInt64 = 0

  /// - Parameters:
  ///   - path: of the server's socket.
  ///   - owner: what its completions carry.
  init(_ path: String, owner: UInt8) {
    self.path = path
    self.owner = owner
  }

  func serves(_ place: Int) -> Bool { numbers[place] != nil }

  /// Whether the stream is not to be received from.
  func holdsBack(_ place: Int) -> Bool { row(place)?.waiting.isEmpty == false }

  private func row(_ place: Int) -> Row? { numbers[place].flatMap { rows[$0] } }

  /// Connects for a stream.
  /// - Parameter places: of the table of all streams.
  /// - Returns: false: the server is not there, or has enough to do.
  mutating func begin(
    _ place: Int, from address: IPAddress, of places: Int, ring: inout Ring, now: MonotonicTime
  ) -> Bool {
    let (origin, site) = (Stream.origin(address), Stream.site(address))
    guard mayHave(origin, site, of: places), case let socket = UnixStream.open(path), socket >= 0 else {
      failed &+= 1
      return false
    }
    nextNumber = nextNumber &+ 1 & 0xFFFF_FFFF_FFFF
    rows[nextNumber] = Row(place: place, origin: origin, site: site, socket: socket, lastMoved: now)
    numbers[place] = nextNumber
    handedOn &+= 1
    poll(nextNumber, ring: &ring)
    return true
  }

  /// Whether an origin may have one more.
  private mutating func mayHave(_ origin: IPAddress, _ site: IPAddress?, of places: Int) -> Bool {
    guard rows.values.count(where: { $0.origin == origin }) < WebHandOn.mostOfOrigin,
      site == nil || rows.values.count(where: { $0.site == site }) < WebHandOn.mostOfSite
    else { return false }
    guard rows.count >= min(WebHandOn.most, places / 2) else { return true }
    evict()
    return false
  }

  /// All have their share, and too many are there: who comes again will find room.
  private mutating func evict() {
    var counts: [IPAddress: Int] = [:]
    for row in rows.values where !row.isEvicted { counts[row.origin, default: 0] += 1 }
    let most = counts.values.max()
    let quietest = rows.filter { !$0.value.isEvicted && counts[$0.value.origin] == most }
      .min { $0.value.lastMoved < $1.value.lastMoved }
    if let quietest { rows[quietest.key]?.isEvicted = true }
  }

  private mutating func poll(_ number: Int, ring: inout Ring) {
    guard let row = rows[number], !row.hasEnded else { return }
    if !row.isPolledReadable {
      rows[number]?.isPolledReadable = true
      ring.pollReadable(RingFile(row.socket), token: Token(owner: owner, kind: Kind.readable, value: number))
    }
    if !row.waiting.isEmpty, !row.isPolledWritable {
      rows[number]?.isPolledWritable = true
      ring.pollWritable(RingFile(row.socket), token: Token(owner: owner, kind: Kind.writable, value: number))
    }
  }

  /// Gives the server what came.
  /// - Returns: false: the stream is to be closed.
  mutating func take(_ place: Int, _ bytes: PacketBytes, ring: inout Ring, now: MonotonicTime) -> Bool {
    guard let number = numbers[place], let row = rows[number], !row.hasEnded else { return true }
    rows[number]?.lastMoved = now
    let sent = row.waiting.isEmpty ? UnixStream.send(row.socket, bytes) : 0
    guard sent >= 0, row.waiting.count + bytes.count - sent <= WebHandOn.mostWaiting else { return false }
    if sent < bytes.count { rows[number]?.waiting.append(bytes.dropFirst(sent)) }
    poll(number, ring: &ring)
    return true
  }

  /// The server takes or says something.
  mutating func complete(
    _ completion: Completion, _ table: inout StreamTable, ring: inout Ring, pool: BufferPool, now: MonotonicTime
  ) -> Step? {
    let number = completion.token.value
    guard let row = rows[number] else { return nil }
    rows[number]?.lastMoved = now
    if completion.token.kind == Kind.writable.rawValue {
      rows[number]?.isPolledWritable = false
      let sent = rows[number]?.waiting.send { UnixStream.send(row.socket, $0, from: $1) }
      if let sent, sent < 0 { return .failed(row.place) }
      poll(number, ring: &ring)
      return .goOn(row.place)
    }
    guard completion.token.kind == Kind.readable.rawValue else { return nil }
    rows[number]?.isPolledReadable = false
    return read(number, &table, ring: &ring, pool: pool)
  }

  /// All that was sealed has gone: the server may say more.
  mutating func sent(_ place: Int, ring: inout Ring) {
    if let number = numbers[place] { poll(number, ring: &ring) }
  }

  /// Reads as much as can be sealed at once, unless something has yet to go: then `sent` polls again.
  private mutating func read(_ number: Int, _ table: inout StreamTable, ring: inout Ring, pool: BufferPool) -> Step? {
    guard let row = rows[number], !row.hasEnded, !table.hasSealed(row.place) else { return nil }
    // Without a buffer it is asked again with the next sweep.
    guard let buffer = pool.take() else { return nil }
    defer { pool.release(buffer) }
    let bytes = pool.bytes(buffer)
    let count = UnixStream.receive(row.socket, into: bytes.slice(0, table.sealRoom(row.place)))
    if count > 0 {
      table.seal(row.place, bytes.slice(0, count))
      return .goOn(row.place)
    }
    if count == -Int(EAGAIN) || count == -Int(EINTR) {
      poll(number, ring: &ring)
      return nil
    }
    rows[number]?.hasEnded = true
    guard count == 0 else { return .failed(row.place) }
    table.sealFarewell(row.place)
    return .ended(row.place)
  }

  /// Places whose streams have said nothing for too long, in either direction, or make room; the others are polled where
  /// that is due.
  mutating func sweep(_ table: borrowing StreamTable, ring: inout Ring, now: MonotonicTime) -> [Int] {
    var idle: [Int] = []
    for (number, row) in rows {
      if row.isEvicted || now.nanoseconds(since: row.lastMoved) > WebHandOn.patience { idle.append(row.place) }
      if !table.hasSealed(row.place) { poll(number, ring: &ring) }
    }
    return idle
  }

  /// Closes what leads to the server.
  mutating func end(_ place: Int, ring: inout Ring) {
    guard let number = numbers.removeValue(forKey: place), let row = rows.removeValue(forKey: number) else { return }
    for (kind, isPolled) in [(Kind.readable, row.isPolledReadable), (.writable, row.isPolledWritable)] where isPolled {
      ring.cancel(
        Token(owner: owner, kind: kind, value: number), token: Token(owner: owner, kind: Kind.cancellation))
    }
    // A poll holds the socket until it was cancelled.
    TCPSocket.shutDown(row.socket)
    KernelSocket.close(row.socket)
  }
}
