import PacketIO

/// How a gateway reaches an identity relay.
enum RelayPath: UInt8, BitwiseCopyable, CaseIterable {
  case udp, tcp, tls
}

/// Where something came from.
enum RelaySource {
  /// A datagram, by its sender's address as the kernel writes it.
  case datagram(PacketBytes)
  /// A stream, by its place in the table of all.
  case stream(Int32)

  /// Nil: it was a datagram.
  var stream: Int32? {
    if case .stream(let place) = self { place } else { nil }
  }
}

/// How something leaves for a gateway.
enum RelayExit: BitwiseCopyable, Equatable {
  case datagrams
  /// By the stream at that place.
  case stream(Int)
}

/// Where an enrolled gateway is, by up to three paths at a time: what packets to and from it are compared with.
struct RelayAddress: BitwiseCopyable {
  /// It is at `name`. Nothing goes there, or comes from there, while it is not.
  var takesDatagrams = false
  var name = SocketName(Endpoint.unspecified)
  /// Position of the listening address that it has spoken to by datagrams.
  var port = 0
  /// When a datagram was last heard. A stream ends by itself.
  var lastHeard = MonotonicTime(nanoseconds: 0)
  /// Its streams, in the clear and encrypted, by their places in the table of all; -1: none.
  var stream: Int32 = -1
  var encryptedStream: Int32 = -1

  init() {}

  init(name: SocketName, port: Int, now: MonotonicTime) {
    takesDatagrams = true
    (self.name, self.port, lastHeard) = (name, port, now)
  }

  /// - Parameter path: not UDP.
  init(stream place: Int32, path: RelayPath) {
    if path == .tls { encryptedStream = place } else { stream = place }
  }

  /// By whatever path.
  var isEnrolled: Bool { takesDatagrams || stream >= 0 || encryptedStream >= 0 }

  @inline(__always) func isAt(_ source: RelaySource) -> Bool {
    switch source {
    case .datagram(let name): takesDatagrams && self.name.equals(name)
    case .stream(let place): place == stream || place == encryptedStream
    }
  }

  /// - Parameter source: one at which it is.
  func path(of source: RelaySource) -> RelayPath {
    source.stream.map { $0 == encryptedStream ? .tls : .tcp } ?? .udp
  }

  /// Whether it is there, too, where another address has it.
  func has(_ other: RelayAddress) -> Bool {
    if other.takesDatagrams { return takesDatagrams && name.equals(other.name) }
    return other.stream >= 0 ? stream == other.stream : encryptedStream == other.encryptedStream
  }

  /// How something leaves for it that came by such a path: by the same one, so that each path between two gateways is
  /// tried from end to end; or by the best that it has.
  @inline(__always) func exit(beside path: RelayPath) -> RelayExit? {
    if path == .tcp, stream >= 0 { return .stream(Int(truncatingIfNeeded: stream)) }
    if path == .tls, encryptedStream >= 0 { return .stream(Int(truncatingIfNeeded: encryptedStream)) }
    if takesDatagrams { return .datagrams }
    let other = stream >= 0 ? stream : encryptedStream
    return other >= 0 ? .stream(Int(truncatingIfNeeded: other)) : nil
  }

  /// Takes over what another one has.
  /// - Returns: the stream in whose place another one has come; nil: none has.
  mutating func add(_ other: RelayAddress) -> Int32? {
    if other.takesDatagrams {
      takesDatagrams = true
      (name, port, lastHeard) = (other.name, other.port, other.lastHeard)
    }
    var replaced: Int32?
    if other.stream >= 0 {
      replaced = stream
      stream = other.stream
    } else if other.encryptedStream >= 0 {
      replaced = encryptedStream
      encryptedStream = other.encryptedStream
    }
    guard let replaced, replaced >= 0, replaced != stream, replaced != encryptedStream else { return nil }
    return replaced
  }

  mutating func leave(stream place: Int32) {
    if stream == place { stream = -1 }
    if encryptedStream == place { encryptedStream = -1 }
  }
}

extension IdentityRelay {
  /// Whether somebody has enrolled by a stream.
  func hasEnrolled(by stream: Int32) -> Bool { places.place(ofStream: stream) != nil }

  /// Whether it was who has that key.
  func isStream(_ stream: Int32, ofKey hostIdentity: [UInt8]) -> Bool {
    places.place(ofStream: stream).map { places[$0].identity.hostIdentity == hostIdentity } ?? false
  }
}
