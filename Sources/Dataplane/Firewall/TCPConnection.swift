/// What is known of one direction of a TCP connection.
package struct TCPSide: BitwiseCopyable, Sendable, Equatable {
  /// Behind the last sequence number this side has used.
  var end: UInt32 = 0
  /// The highest acknowledgement of this side's numbers; until there is one, its initial sequence number.
  var acknowledged: UInt32 = 0
  /// Behind the last sequence number that the other side has ever allowed it.
  var limit: UInt32 = 0
  /// The largest window this side has offered, in units of 2^scale.
  var window: UInt16 = 0
  /// The scale in use, 0 to 14, and the one its SYN has offered; the latter means something with `scalesMark` only.
  var scale: UInt8 = 0
  private(set) var offeredScale: UInt8 = 0
  var marks: UInt8 = 0

  /// It sent a SYN without ACK, an offer to scale windows, a FIN.
  static let openedMark: UInt8 = 1
  static let scalesMark: UInt8 = 2
  static let finishedMark: UInt8 = 4

  /// Nothing known but where its numbers stand.
  init(end: UInt32 = 0, acknowledged: UInt32 = 0) {
    self.end = end
    self.acknowledged = acknowledged
  }

  /// A side that has sent this SYN or SYN-ACK.
  init(opening segment: TCPSegment, scale: UInt8?, marks: UInt8) {
    end = segment.end
    acknowledged = segment.sequence
    limit = segment.end
    window = segment.window
    offeredScale = scale ?? 0
    self.marks = marks | (scale == nil ? 0 : TCPSide.scalesMark)
  }

  /// Counts windows in units of 2^scale from now on. What SYNs say of them is not scaled (RFC 7323 §2.2).
  mutating func use(scale: UInt8) {
    let bytes = min(UInt32(window) << UInt32(self.scale), 0xFFFF)
    self.scale = scale
    window = UInt16(truncatingIfNeeded: (bytes + (1 << UInt32(scale)) - 1) >> UInt32(scale))
  }

  @inline(__always) func has(_ mark: UInt8) -> Bool { marks & mark != 0 }
  /// Bytes of the largest window, 1 at least: a probe of a closed window carries one.
  @inline(__always) var windowBytes: UInt32 { max(UInt32(window) &<< UInt32(scale), 1) }
}

/// Follows a TCP connection and says which packets can belong to it.
///
/// A packet belongs to the connection when its sequence numbers lie in the window the other side has offered, or not
/// further back than that window is wide, and when what it acknowledges was sent, and not too long ago (van Rooij,
/// "Real stateful TCP packet filtering in IP Filter", 2001). Numbers are compared where a superpacket begins and ends:
/// it takes as many of them as its segments do, so it does not matter in how many pieces a payload comes by. Where a
/// window is not known, because the beginning of the connection was not seen, none is enforced (RFC 6092 REC-32).
///
/// Neither a reset nor a FIN ends a flow at once; they only make it end sooner (RFC 7857 §2).
package struct TCPConnection: BitwiseCopyable, Sendable, Equatable {
  var outbound = TCPSide()
  var inbound = TCPSide()

  /// What a packet means for its connection.
  enum Step: BitwiseCopyable, Equatable {
    /// It belongs to it, which is in this phase now.
    case follows(FlowPhase)
    /// It cannot belong to it.
    case contradicts
    /// The connection is over; this would be a new one.
    case begins
  }

  /// How far behind the newest data an acknowledgement may be, even when windows are small.
  private static let acknowledgementSlack: UInt32 = 66_000

  package init() {}

  /// A connection that begins with this SYN.
  package init(_ segment: TCPSegment, scale: UInt8?, from opener: TrafficDirection) {
    let side = TCPSide(opening: segment, scale: scale, marks: TCPSide.openedMark)
    if opener == .outbound { outbound = side } else { inbound = side }
  }

  /// A connection that was under way already.
  init(pickedUp segment: TCPSegment, from opener: TrafficDirection) {
    let sender = TCPSide(end: segment.end, acknowledged: segment.sequence)
    let receiver = TCPSide(end: segment.acknowledgement, acknowledged: segment.acknowledgement)
    outbound = opener == .outbound ? sender : receiver
    inbound = opener == .outbound ? receiver : sender
  }

  // MARK: Following

  /// Takes a packet into account.
  ///
  /// - Parameters:
  ///   - scale: what a SYN offers.
  ///   - isLoose: do not enforce windows.
  mutating func follow(
    _ segment: TCPSegment, scale: UInt8?, from direction: TrafficDirection, opener: TrafficDirection, phase: FlowPhase,
    isLoose: Bool
  ) -> Step {
    if phase == .established, segment.isPlain, carry(segment, from: direction, isLoose: isLoose) {
      return .follows(.established)
    }
    var sender = direction == .outbound ? outbound : inbound
    var receiver = direction == .outbound ? inbound : outbound
    let step = TCPConnection.followUnusual(
      segment, scale, fromOpener: direction == opener, phase, isLoose: isLoose, &sender, &receiver)
    outbound = direction == .outbound ? sender : receiver
    inbound = direction == .outbound ? receiver : sender
    return step
  }

  /// Takes a packet without flags into account, as nearly all of an established connection are. False, and nothing is
  /// changed, when it does not fit, or both sides have finished.
  @inline(__always)
  mutating func carry(_ segment: TCPSegment, from direction: TrafficDirection, isLoose: Bool) -> Bool {
    guard outbound.marks & inbound.marks & TCPSide.finishedMark == 0 else { return false }
    if direction == .outbound {
      guard isLoose || TCPConnection.isInWindow(segment, outbound, inbound) else { return false }
      TCPConnection.advance(segment, &outbound, &inbound)
    } else {
      guard isLoose || TCPConnection.isInWindow(segment, inbound, outbound) else { return false }
      TCPConnection.advance(segment, &inbound, &outbound)
    }
    return true
  }

  @inline(never)
  private static func followUnusual(
    _ segment: TCPSegment, _ scale: UInt8?, fromOpener: Bool, _ phase: FlowPhase, isLoose: Bool,
    _ sender: inout TCPSide, _ receiver: inout TCPSide
  ) -> Step {
    if segment.has(TCPSegment.rst) {
      return reset(segment, fromOpener: fromOpener, phase, isLoose: isLoose, sender, receiver)
    }
    if segment.has(TCPSegment.syn) {
      return segment.has(TCPSegment.ack)
        ? synAck(segment, scale, fromOpener: fromOpener, phase, isLoose: isLoose, &sender, &receiver)
        : syn(segment, scale, fromOpener: fromOpener, phase, &sender, &receiver)
    }
    return other(segment, fromOpener: fromOpener, phase, isLoose: isLoose, &sender, &receiver)
  }

  // MARK: Opening

  private static func syn(
    _ segment: TCPSegment, _ scale: UInt8?, fromOpener: Bool, _ phase: FlowPhase, _ sender: inout TCPSide,
    _ receiver: inout TCPSide
  ) -> Step {
    switch phase {
    case .opening where fromOpener:
      // Sent again, or once more with another number; a flow picked up by chance begins properly now.
      return .begins
    case .opening:
      // Simultaneous open (RFC 9293 §3.5, RFC 5382 REQ-2).
      sender = TCPSide(opening: segment, scale: scale, marks: TCPSide.openedMark)
      settleScales(&sender, &receiver)
      sender.limit = sender.end &+ receiver.windowBytes
      receiver.limit = receiver.end &+ sender.windowBytes
      return .follows(.answered)
    case .answered, .established, .closing:
      // Sent again; or its sender has forgotten the connection, and the other end will tell it (RFC 5961 §4).
      return fromOpener || sender.has(TCPSide.openedMark) ? .follows(phase) : .contradicts
    case .closed, .reset:
      return .begins
    }
  }

  private static func synAck(
    _ segment: TCPSegment, _ scale: UInt8?, fromOpener: Bool, _ phase: FlowPhase, isLoose: Bool,
    _ sender: inout TCPSide, _ receiver: inout TCPSide
  ) -> Step {
    switch phase {
    case .opening, .answered:
      // The opener answers only where both have sent a SYN.
      guard !fromOpener || sender.has(TCPSide.openedMark) && receiver.has(TCPSide.openedMark) || isLoose else {
        return .contradicts
      }
      // Data in a SYN need not be acknowledged at once (RFC 7413).
      guard isLoose || acknowledgesOpening(segment, receiver) else { return .contradicts }
      // Another number than the last time: servers under attack answer without memory (SYN cookies).
      if phase == .opening || segment.sequence != sender.acknowledged {
        sender = TCPSide(opening: segment, scale: scale, marks: sender.marks & TCPSide.openedMark)
        settleScales(&sender, &receiver)
        sender.limit = sender.end &+ receiver.windowBytes
      }
      // The window of a SYN is never scaled.
      let limit = segment.acknowledgement &+ max(UInt32(segment.window), 1)
      if phase == .opening || distance(limit, receiver.limit) > 0 { receiver.limit = limit }
      return .follows(.answered)
    case .established, .closing:
      // The acknowledgement got lost, and it is sent again.
      let mayBe = !fromOpener || sender.has(TCPSide.openedMark)
      return mayBe && (isLoose || isInWindow(segment, sender, receiver)) ? .follows(phase) : .contradicts
    case .closed, .reset:
      return .contradicts
    }
  }

  /// Whether a packet acknowledges the other side's SYN, which only somebody who saw it can.
  private static func acknowledgesOpening(_ segment: TCPSegment, _ receiver: TCPSide) -> Bool {
    distance(segment.acknowledgement, receiver.acknowledged) > 0 && distance(segment.acknowledgement, receiver.end) <= 0
  }

  /// Windows are scaled when both sides have offered to (RFC 7323 §2.2).
  private static func settleScales(_ a: inout TCPSide, _ b: inout TCPSide) {
    let isScaled = a.has(TCPSide.scalesMark) && b.has(TCPSide.scalesMark)
    a.use(scale: isScaled ? a.offeredScale : 0)
    b.use(scale: isScaled ? b.offeredScale : 0)
  }

  // MARK: Carrying on and closing

  private static func other(
    _ segment: TCPSegment, fromOpener: Bool, _ phase: FlowPhase, isLoose: Bool, _ sender: inout TCPSide,
    _ receiver: inout TCPSide
  ) -> Step {
    if phase == .opening {
      if isLoose {
        advance(segment, &sender, &receiver)
        return .follows(fromOpener ? .opening : .answered)
      }
      // A host that still holds an old connection answers a SYN with a bare acknowledgement; the reset that this
      // provokes clears the way (RFC 9293 §3.5.1, RFC 5961 §4).
      return !fromOpener && segment.end == segment.sequence ? .follows(.opening) : .contradicts
    }
    guard isLoose || isInWindow(segment, sender, receiver) else { return .contradicts }
    if phase == .answered {
      // Established by whoever shows that it has seen the other's SYN, which a forger has not.
      let isAnswer = fromOpener || sender.has(TCPSide.openedMark)
      if isAnswer, !isLoose, !acknowledgesOpening(segment, receiver) { return .contradicts }
      advance(segment, &sender, &receiver)
      return .follows(isAnswer ? progress(sender, receiver) : .answered)
    }
    advance(segment, &sender, &receiver)
    return .follows(phase == .closed ? .closed : progress(sender, receiver))
  }

  /// A reset counts when it hits exactly the number that its receiver expects (RFC 5961 §3); within the window it
  /// passes, for the receiver to ask back.
  private static func reset(
    _ segment: TCPSegment, fromOpener: Bool, _ phase: FlowPhase, isLoose: Bool, _ sender: TCPSide, _ receiver: TCPSide
  ) -> Step {
    if isLoose { return .follows(.reset) }
    if phase == .opening {
      // "Connection refused" acknowledges the SYN (RFC 9293 §3.10.7.3).
      let isRefusal = segment.has(TCPSegment.ack) && acknowledgesOpening(segment, receiver)
      return fromOpener || isRefusal ? .follows(.reset) : .contradicts
    }
    guard distance(segment.sequence, sender.limit) <= 0,
      distance(segment.sequence, sender.end &- receiver.windowBytes) >= 0
    else { return .contradicts }
    let isExact = segment.sequence == sender.end || segment.sequence == sender.acknowledged
    return .follows(isExact && phase != .closed ? .reset : phase)
  }

  @inline(__always)
  private static func isInWindow(_ segment: TCPSegment, _ sender: TCPSide, _ receiver: TCPSide) -> Bool {
    let slack = max(sender.windowBytes, acknowledgementSlack)
    return distance(segment.sequence, sender.limit) <= 0
      && distance(segment.end, sender.end &- receiver.windowBytes) >= 0
      && distance(segment.acknowledgement, receiver.end) <= 0
      && distance(segment.acknowledgement, receiver.end &- slack) >= 0
  }

  @inline(__always)
  private static func advance(_ segment: TCPSegment, _ sender: inout TCPSide, _ receiver: inout TCPSide) {
    if distance(segment.end, sender.end) > 0 { sender.end = segment.end }
    if segment.window > sender.window { sender.window = segment.window }
    if segment.has(TCPSegment.fin) { sender.marks |= TCPSide.finishedMark }
    let limit = segment.acknowledgement &+ max(UInt32(segment.window) &<< UInt32(sender.scale), 1)
    if distance(limit, receiver.limit) > 0 { receiver.limit = limit }
    if distance(segment.acknowledgement, receiver.acknowledged) > 0 { receiver.acknowledged = segment.acknowledgement }
  }

  /// The phase of a connection that both sides have opened.
  @inline(__always)
  private static func progress(_ a: TCPSide, _ b: TCPSide) -> FlowPhase {
    guard a.marks & b.marks & TCPSide.finishedMark != 0 else { return .established }
    return a.acknowledged == a.end && b.acknowledged == b.end ? .closed : .closing
  }

  /// How far `a` lies ahead of `b` in sequence space (RFC 9293 §3.4).
  @inline(__always)
  private static func distance(_ a: UInt32, _ b: UInt32) -> Int32 { Int32(bitPattern: a &- b) }

  /// Whether a sequence number, as an ICMP error quotes it, is one that `direction` can have in flight
  /// (RFC 5927 §4.1).
  func hasInFlight(_ sequence: UInt32, from direction: TrafficDirection) -> Bool {
    let side = direction == .outbound ? outbound : inbound
    return TCPConnection.distance(sequence, side.acknowledged) >= 0 && TCPConnection.distance(sequence, side.end) <= 0
  }
}
