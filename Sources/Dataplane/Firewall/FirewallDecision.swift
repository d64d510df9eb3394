import PacketIO

/// What is to be done about a packet.
struct FirewallDecision: BitwiseCopyable {
  enum Effect: UInt8, BitwiseCopyable {
    case none
    /// The packet belongs to the flow at `place`, which is in `phase` now.
    case follow
    /// It begins one, in place of the one at `place` if there is any.
    case open
    /// The flow at `place` may not be any more.
    case end
  }

  var verdict: Verdict
  var effect = Effect.none
  var phase = FlowPhase.opening
  var kind = FlowKind.other
  var isLoose = false
  var logs = false
  var place = -1
  var tag: UInt32 = 0
  var key = FlowKey(local: IPAddress(v4: 0), remote: IPAddress(v4: 0), transport: 0, localPort: 0, remotePort: 0)
  var connection = TCPConnection()

  init(_ verdict: Verdict) { self.verdict = verdict }

  @inline(__always)
  static func refused(_ reason: DropReason, _ ground: FirewallGround = .none, isKnown: Bool = false) -> FirewallDecision
  {
    FirewallDecision(Verdict(refusal: reason, ground: ground, isKnown: isKnown))
  }
}
