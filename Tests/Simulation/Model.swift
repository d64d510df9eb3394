import PacketIO

@testable import Dataplane

/// What a gateway has sealed: under which association, and the number there.
struct Seal: Hashable {
  var spi: UInt32
  var sequence: UInt64
}

/// What must come of each packet. It knows what hosts send, what links do, and by RFC 4303 which sealed packets a
/// gateway has to refuse; it knows nothing of how gateways do it.
///
/// - A packet must arrive, once and unaltered, at the gateway that its destination is behind. It is excused if anything
///   that its sender sent to that gateway while it was on its way out was harmed, or if its sender was told that it is
///   too large.
/// - A packet to nowhere, to a peer without a key, from a source that is not its gateway's, but nobody's or its receiver's own, or that a rule forbids must not
///   arrive.
struct Model {
  enum Verdict: UInt8 { case arrives, goesNowhere, isUnsealed, isSpoofed, isForbidden }

  struct Sent {
    var packet: Packet
    var from: Int
    var to: Int
    var verdict = Verdict.arrives
    var time = MonotonicTime(nanoseconds: 0)
    var isDelivered = false
    var isTold = false
    /// Packets that were sent in one piece with this one and follow it.
    var followers = 0
    /// As its receiver is to see it, where addresses are translated.
    var seen: Packet?
  }

  /// What a receiver has to remember of an association (RFC 4303 §3.4.3).
  private struct Window {
    let size: UInt64
    /// Numbers up to here count as seen.
    var floor: UInt64
    var highest: UInt64
    private var seen: [UInt64]

    init(size: Int, floor: UInt64) {
      (self.size, self.floor, highest) = (UInt64(size), floor, floor)
      seen = Array(repeating: UInt64.max, count: size)
    }

    mutating func accept(_ sequence: UInt64) -> Bool {
      guard sequence > floor, sequence > highest || highest - sequence < size,
        seen[Int(sequence % size)] != sequence
      else { return false }
      seen[Int(sequence % size)] = sequence
      highest = max(highest, sequence)
      return true
    }
  }

  /// Nanoseconds from when a packet is read to when what it became has left, hand-offs between workers included.
  private static let way: UInt64 = 300_000

  private(set) var sent: [Sent] = []
  /// The first thing that is not as it must be, and when that was, if not just now.
  private(set) var fault: String?
  private(set) var faultTime: MonotonicTime?
  private(set) var delivered = 0
  /// Sealed packets that each gateway has to refuse.
  private(set) var refused: [Int]
  private let gateways: Int
  /// By sender and receiver: when something was sent that was harmed.
  private var harms: [[MonotonicTime]]
  /// By receiver: the associations under which it accepts.
  private var windows: [[UInt32: Window]]
  /// By receiver: where associations stopped that are in force no more.
  private var remembered: [[UInt32: UInt64]]
  /// Of each association, the last number that was used.
  private(set) var used: [UInt32: UInt64] = [:]

  init(gateways: Int) {
    self.gateways = gateways
    refused = Array(repeating: 0, count: gateways)
    harms = Array(repeating: [], count: gateways * gateways)
    windows = Array(repeating: [:], count: gateways)
    remembered = windows.map { _ in [:] }
  }

  mutating func fail(_ text: String) { if fault == nil { fault = text } }

  // MARK: Hosts

  /// A host sends; its packet's number is how many there were before.
  mutating func add(_ sent: Sent) { self.sent.append(sent) }

  /// A device gets a packet.
  mutating func deliver(_ bytes: [UInt8], wasCut: Bool, at gateway: Int) -> Sent? {
    guard let number = Packet.number(in: bytes), number < sent.count else {
      fail("gateway \(gateway) delivers what nobody has sent: \(bytes.prefix(60))")
      return nil
    }
    let packet = sent[Int(number)]
    delivered += 1
    if packet.to != gateway {
      fail("gateway \(gateway) delivers packet \(number), which is for gateway \(packet.to)")
    } else if packet.verdict != .arrives {
      fail("gateway \(gateway) delivers packet \(number), which \(packet.verdict)")
    } else if packet.isDelivered {
      fail("gateway \(gateway) delivers packet \(number) again")
    } else if Packet.comparable(bytes, wasCut: wasCut)
      != Packet.comparable((packet.seen ?? packet.packet).bytes, wasCut: wasCut)
    {
      fail("gateway \(gateway) delivers packet \(number) altered: \(bytes.prefix(60))")
    }
    sent[Int(number)].isDelivered = true
    return packet
  }

  /// A sender gets an error (RFC 1191, RFC 4443), which quotes the packet that it is about.
  mutating func tell(_ bytes: [UInt8], at gateway: Int) -> UInt64? {
    guard !bytes.isEmpty, let number = Packet.number(in: bytes, at: bytes[0] >> 4 == 4 ? 28 : 48),
      number < sent.count, sent[Int(number)].from == gateway
    else {
      fail("gateway \(gateway) says something to nobody: \(bytes.prefix(60))")
      return nil
    }
    for place in Int(number)...Int(number) + sent[Int(number)].followers { sent[place].isTold = true }
    return number
  }

  // MARK: Links

  /// A gateway has sealed a packet; says under which number. Only the lower half of it is in the packet.
  mutating func seal(_ datagram: [UInt8], _ association: SecurityAssociationConfiguration) -> Seal {
    let low = datagram[4..<8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let last = used[association.spi] ?? association.firstSequence - 1
    var sequence = last & ~0xFFFF_FFFF | low
    if association.extendedSequenceNumbers, sequence <= last, last - sequence > 1 << 31 { sequence += 1 << 32 }
    if sequence <= last { fail("number \(sequence) is used again under \(association.spi) (invariant 1)") }
    used[association.spi] = sequence
    return Seal(spi: association.spi, sequence: sequence)
  }

  /// Something that was sent then does not arrive as it was, or may not.
  mutating func harm(from sender: Int, to receiver: Int, sentAt time: MonotonicTime) {
    harms[sender * gateways + receiver].append(time)
  }

  /// What was on its way through a gateway that ends.
  mutating func harmAll(through gateway: Int, now: MonotonicTime) {
    for other in 0..<gateways {
      harm(from: gateway, to: other, sentAt: now)
      harm(from: other, to: gateway, sentAt: now)
    }
  }

  /// Whether a gateway has to open what it receives; if not, it counts a refusal.
  mutating func receive(_ flight: Flight, at gateway: Int) -> Bool {
    if let seal = flight.seal, !flight.isCorrupted, windows[gateway][seal.spi]?.accept(seal.sequence) == true {
      return true
    }
    refused[gateway] += 1
    return false
  }

  // MARK: Gateways

  /// A worker of a gateway accepts under these associations from now on, and no others of that worker's.
  mutating func adopt(
    _ associations: [SecurityAssociationConfiguration], at gateway: Int, worker: Int, of workers: Int
  ) {
    let mine = associations.filter { Int($0.spi) & (workers - 1) == worker }
    for spi in windows[gateway].keys where Int(spi) & (workers - 1) == worker {
      if mine.contains(where: { $0.spi == spi }) { continue }
      remembered[gateway][spi] = windows[gateway][spi]?.highest
      windows[gateway][spi] = nil
    }
    for association in mine where windows[gateway][association.spi] == nil {
      let floor = max(association.firstSequence - 1, remembered[gateway][association.spi] ?? 0)
      windows[gateway][association.spi] = Window(size: association.replayWindow, floor: floor)
    }
  }

  /// A gateway has ended: of what it accepted, it will know the highest numbers only.
  mutating func end(_ gateway: Int) {
    for (spi, window) in windows[gateway] { remembered[gateway][spi] = window.highest }
    windows[gateway] = [:]
  }

  /// What a gateway has accepted, as its state file says it.
  func accepted(at gateway: Int) -> [UInt32: UInt64] { remembered[gateway] }

  // MARK: The end

  /// Looks for packets without an excuse.
  ///
  /// - Parameter counted: packets that gateways have dropped for a reason that the scenario allows.
  mutating func judge(counted: Int) {
    for pair in harms.indices { harms[pair].sort() }
    var missing: [UInt64] = []
    for packet in sent where packet.verdict == .arrives && !packet.isDelivered && !packet.isTold {
      if !isExcused(packet) { missing.append(packet.packet.number) }
    }
    guard missing.count > counted, let first = missing.first else { return }
    let packet = sent[Int(first)]
    faultTime = packet.time
    let time = packet.time.nanoseconds / 1000
    fail(
      "\(missing.count) packets are missing and \(counted) are counted; the first is packet \(first) from gateway "
        + "\(packet.from) to gateway \(packet.to), sent at \(time / 1_000_000).\(String(1_000_000 + time % 1_000_000).dropFirst())"
    )
  }

  private func isExcused(_ packet: Sent) -> Bool {
    let times = harms[packet.from * gateways + packet.to]
    var (low, high) = (0, times.count)
    while low < high {
      let middle = (low + high) / 2
      if times[middle] < packet.time { low = middle + 1 } else { high = middle }
    }
    return low < times.count && times[low].nanoseconds(since: packet.time) <= Model.way
  }

  /// Of the packets since then that were to arrive, how many there were and how many did not.
  func count(since time: MonotonicTime) -> (sent: Int, missing: Int) {
    var (count, missing) = (0, 0)
    for packet in sent.reversed() {
      if packet.time < time { break }
      guard packet.verdict == .arrives else { continue }
      count += 1
      if !packet.isDelivered { missing += 1 }
    }
    return (count, missing)
  }

  /// Packets whose senders were told that they are too large.
  var told: Int { sent.reduce(0) { $0 + ($1.isTold ? 1 : 0) } }

  func count(_ verdict: Verdict, from gateway: Int) -> Int {
    sent.reduce(0) { $0 + ($1.verdict == verdict && $1.from == gateway ? 1 : 0) }
  }
}
