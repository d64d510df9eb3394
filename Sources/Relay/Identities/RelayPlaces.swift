import Identity
import PacketIO
import Transports

/// Who an enrolled gateway is.
struct RelayGateway {
  let identity: PublicHostIdentity
  var token: HairpinNumber
  /// Of the last enrolment.
  var sequence: UInt64
  /// Pairs that it is part of, so that it is remembered.
  var pairs = 0
  /// What it says beside sealed packets, and nobody else can have said; a gateway that comes back says something to each of
  /// its partners at once.
  var proven = TokenBucket(perSecond: 2500, burst: 10_000)
  /// Datagrams that came from where it is, and that whoever can write that address may have sent.
  var unproven = TokenBucket(perSecond: 2500, burst: 10_000)
  /// Signatures of such datagrams that turn out to be wrong.
  var forged = TokenBucket(perSecond: 500, burst: 1000)
}

/// All gateways that have enrolled, each with a place that stays its own while anything is bound to it.
struct RelayPlaces: ~Copyable {
  private(set) var addresses: FixedArray<RelayAddress>
  private var gateways: [RelayGateway?]
  private var places: [HostIdentityTag: Int] = [:]
  private var tokens: [HairpinNumber: Int] = [:]
  /// Whose stream each is by which somebody has enrolled, and where it comes from.
  private var owners: [Int32: (place: Int, seen: Endpoint)] = [:]
  /// Streams in whose place another has come.
  private var replaced: [Int32] = []
  private var free: [Int]
  private(set) var enrolled = 0

  init(capacity: Int) {
    addresses = FixedArray(repeating: RelayAddress(), count: capacity)
    gateways = Array(repeating: nil, count: capacity)
    free = (0..<capacity).reversed()
  }

  var capacity: Int { addresses.count }

  /// A gateway's place; nil: it is not known. It may be known and not be enrolled any more.
  func place(of tag: HostIdentityTag) -> Int? { places[tag] }

  /// The place of who was given a token.
  func place(holding token: HairpinNumber) -> Int? { tokens[token] }

  /// The gateway at a place that somebody has.
  subscript(_ place: Int) -> RelayGateway {
    get {
      guard let gateway = gateways[place] else { preconditionFailure("nobody has the place") }
      return gateway
    }
    set { gateways[place] = newValue }
  }

  /// The place of who has enrolled by a stream.
  func place(ofStream stream: Int32) -> Int? { owners[stream]?.place }

  /// Where a stream comes from; nil: nobody has enrolled by it.
  func seen(_ stream: Int32) -> Endpoint? { owners[stream]?.seen }

  func isTaken(_ place: Int) -> Bool { gateways[place] != nil }

  /// Takes an enrolment: by that path the gateway is there from now on, and nowhere else.
  /// - Parameter seen: where a stream comes from.
  /// - Returns: its place; nil: there is none left.
  mutating func enrol(
    _ identity: PublicHostIdentity, _ address: RelayAddress, seen: Endpoint, token: HairpinNumber, sequence: UInt64
  ) -> Int? {
    guard let place = places[identity.tag] ?? free.popLast() else { return nil }
    if let before = gateways[place] {
      tokens[before.token] = nil
      self[place].token = token
      self[place].sequence = sequence
    } else {
      gateways[place] = RelayGateway(identity: identity, token: token, sequence: sequence)
      places[identity.tag] = place
    }
    tokens[token] = place
    if !addresses[place].isEnrolled { enrolled += 1 }
    for stream in [address.stream, address.encryptedStream] where stream >= 0 { owners[stream] = (place, seen) }
    if let gone = addresses[place].add(address) {
      owners[gone] = nil
      replaced.append(gone)
    }
    return place
  }

  /// Streams that are to be closed, because their gateways have enrolled by others.
  mutating func takeReplaced() -> [Int32] {
    defer { replaced = [] }
    return replaced
  }

  /// A stream has ended.
  mutating func leave(stream: Int32) {
    guard let place = owners.removeValue(forKey: stream)?.place else { return }
    addresses[place].leave(stream: stream)
    forget(place)
  }

  mutating func heard(_ place: Int, now: MonotonicTime) { addresses[place].lastHeard = now }

  /// Nothing has come from a gateway's address for long: it is not enrolled by datagrams any more.
  mutating func expire(_ place: Int) {
    guard addresses[place].takesDatagrams else { return }
    addresses[place].takesDatagrams = false
    forget(place)
  }

  /// One of a gateway's paths has gone; it may have been the last.
  private mutating func forget(_ place: Int) {
    guard !addresses[place].isEnrolled else { return }
    enrolled -= 1
    release(place)
  }

  /// Forgets a gateway that is not enrolled, if nothing is bound to it.
  mutating func release(_ place: Int) {
    guard let gateway = gateways[place], !addresses[place].isEnrolled, gateway.pairs == 0 else { return }
    tokens[gateway.token] = nil
    places[gateway.identity.tag] = nil
    gateways[place] = nil
    free.append(place)
  }
}
