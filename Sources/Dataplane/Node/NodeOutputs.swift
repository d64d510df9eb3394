package import PacketIO

/// What a node has made of a call, beside what is for the device. Whoever drives the node takes it after each call.
package struct NodeOutputs: ~Copyable {
  /// What the outbound pipeline has made. A packet's reference passes to whoever takes it.
  var packets: OutboundResults
  /// What the embedder may want to know.
  package var events: [Event] = []
  package var commands: [PathCommand] = []
  package var notices: [NegotiationNotice] = []
  /// For whoever agrees upon keys.
  package var keyNotices: [KeyNotice] = []
  /// Where what was made could not be sent.
  var failures = SendFailures()

  init(buffers: Int, batchCapacity: Int) {
    packets = OutboundResults(buffers: buffers, batchCapacity: batchCapacity)
  }

  /// For the transports: sealed packets.
  package var trains: PacketBatch {
    _read { yield packets.trains }
    _modify { yield &packets.trains }
  }

  /// Something is in one of the lists.
  package var hasWords: Bool { !(events.isEmpty && commands.isEmpty && notices.isEmpty && keyNotices.isEmpty) }

  /// What was made goes to the transports now: paths that have failed are tried.
  package mutating func noteSending(now: MonotonicTime) {
    if failures.isEmpty { return }
    for index in 0..<packets.trains.count { failures.noteTry(packets.trains[index].path, now: now) }
    for case .keepAlive(let path) in commands { failures.noteTry(path, now: now) }
  }

  /// Somebody else sends something along a path.
  package mutating func noteSending(along path: Path, now: MonotonicTime) { failures.noteTry(path, now: now) }

  // An empty list is not emptied: that would give it new memory, while the caller holds the old.

  /// What was gathered in a list since the last call.
  package mutating func takeEvents() -> [Event] {
    guard !events.isEmpty else { return [] }
    defer { events.removeAll(keepingCapacity: true) }
    return events
  }
  package mutating func takeCommands() -> [PathCommand] {
    guard !commands.isEmpty else { return [] }
    defer { commands.removeAll(keepingCapacity: true) }
    return commands
  }
  package mutating func takeNotices() -> [NegotiationNotice] {
    guard !notices.isEmpty else { return [] }
    defer { notices.removeAll(keepingCapacity: true) }
    return notices
  }
  package mutating func takeKeyNotices() -> [KeyNotice] {
    guard !keyNotices.isEmpty else { return [] }
    defer { keyNotices.removeAll(keepingCapacity: true) }
    return keyNotices
  }
}

/// What the transport of a path is to do.
package enum PathCommand: Sendable, Equatable {
  /// As `TransportLink.confirm`: a packet that came by the path proved authentic.
  case confirm(Path, Holder)
  /// As `TransportLink.release`: what this side has opened there is not needed any more.
  case release(Path)
  /// As `TransportLink.keepAlive`.
  case keepAlive(Path)
}

/// What those who negotiate addresses are to hear.
package enum NegotiationNotice: Sendable, Equatable {
  /// A control message of a purpose that is not the node's.
  case message(peer: String, type: UInt8, body: [UInt8])
  /// A peer has shown itself, at another place than before.
  case heard(peer: String)
}

/// What a node has to know of the paths that its transports carry.
package protocol PathFacts {
  /// As `TransportLink.overhead`: bytes that the path adds to a sealed packet; nil: packets of any size get through.
  func overhead(_ path: Path) -> Int?
  /// Whether this worker itself can send there.
  func carries(_ path: Path) -> Bool
}
