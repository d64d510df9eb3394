import PacketIO

/// An address translator in front of one place (RFC 4787): whatever leaves gets its address and a port of it, and only
/// what comes to such a port gets in.
struct Translator {
  /// What a port belongs to.
  enum Kind {
    /// One sender inside: anybody outside may answer.
    case bySource
    /// One sender inside and one receiver outside, who alone may answer.
    case byDestination
  }

  private struct Mapping {
    var port: UInt16
    /// Nil: anybody.
    var outside: Endpoint?
    var lastUsed: MonotonicTime
  }

  let address: IPAddress
  let kind: Kind
  /// Nanoseconds without a datagram from inside after which a port is taken back.
  var lifetime: UInt64
  private var mappings: [Mapping] = []
  private var lastPort: UInt16 = 20_000

  init(address: IPAddress, kind: Kind, lifetime: UInt64) {
    self.address = address
    self.kind = kind
    self.lifetime = lifetime
  }

  /// Where a datagram seems to come from when it has passed.
  mutating func leave(to destination: Endpoint, now: MonotonicTime) -> Endpoint {
    forget(now)
    let outside = kind == .bySource ? nil : destination
    var place = mappings.firstIndex { $0.outside == outside }
    if place == nil {
      lastPort += 1
      mappings.append(Mapping(port: lastPort, outside: outside, lastUsed: now))
      place = mappings.count - 1
    }
    guard let place else { return destination }
    mappings[place].lastUsed = now
    return Endpoint(address: address, port: mappings[place].port)
  }

  /// Whether a datagram for a port gets in.
  mutating func enters(at port: UInt16, from source: Endpoint, now: MonotonicTime) -> Bool {
    forget(now)
    return mappings.contains { $0.port == port && ($0.outside == nil || $0.outside == source) }
  }

  private mutating func forget(_ now: MonotonicTime) {
    mappings.removeAll { now.nanoseconds(since: $0.lastUsed) > lifetime }
  }

  /// Takes all ports back, as a translator does that was started anew: whoever goes on sending gets another one.
  mutating func rebind() { mappings = [] }
}
