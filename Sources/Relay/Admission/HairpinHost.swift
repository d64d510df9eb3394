import PacketIO
import Transports

/// Where hairpins are served: whoever opens ports, sends and forwards. The rules are the same for the kernel's sockets and
/// for those of a simulation.
protocol HairpinHost: ~Copyable {
  var state: EngineState { get set }
  /// Of the identity relay beside; its denials go before tickets that name GIDs.
  var policy: RelayPolicy? { mutating get }
  /// Admission and state at once.
  mutating func decide<Value>(_ body: (inout Admission, inout EngineState) -> Value) -> Value
  /// Opens a port for a side.
  /// - Returns: nil, or why there is none.
  mutating func open(
    _ side: SideIndex, _ encapsulation: Encapsulation, for control: Admission.ControlAddress
  ) -> HairpinReason?
  /// Closes a side's port and stream; its figures stay.
  mutating func release(_ side: SideIndex)
  /// Sends a message to a side's proven address.
  mutating func tell(_ side: SideIndex, _ bytes: [UInt8])
  /// Sends a message from a side's datagram port.
  /// - Returns: whether it was taken.
  mutating func say(_ bytes: [UInt8], from side: SideIndex, to name: SocketName) -> Bool
  /// Has sealed packets of a side go to its partner.
  mutating func stage(_ run: ForwardBatch.Run, _ side: SideIndex)
}

extension HairpinHost where Self: ~Copyable {
  // MARK: Control ports

  /// What is answered to a message on a control port; nil: nothing.
  mutating func answer(
    _ bytes: [UInt8], _ sender: Endpoint, toControl control: Admission.ControlAddress, _ encapsulation: Encapsulation
  ) -> Admission.Answer? {
    let policy = policy
    switch decide({ $0.answer(bytes, sender, toControl: control, encapsulation, under: policy, &$1) }) {
    case .answer(let answer): return answer
    case .decision(let decision, let present):
      let outcome = carryOut(decision, present.encapsulation, control)
      return decide { $0.answer(present, outcome, sender, &$1) }
    case nil: return nil
    }
  }

  /// Opens the port that a ticket's holder is to have, unless there is one.
  private mutating func carryOut(
    _ decision: Admission.Decision, _ encapsulation: Encapsulation, _ control: Admission.ControlAddress
  ) -> Result<SideIndex, HairpinReason> {
    switch decision {
    case .refused(let reason): return .failure(reason)
    case .keeps(let side): return .success(side)
    case .opens(let side, let ticket, let isNew):
      if isNew { state.begin(side.hairpin, ticket) }
      if state.sides[side].port.isAllocated { release(side) }
      guard let reason = open(side, encapsulation, for: control) else { return .success(side) }
      Admission.count(reason, &state.statistics)
      if isNew { finish(side.hairpin, .failed) }
      return .failure(reason)
    }
  }

  // MARK: Ends

  /// Books sealed bytes that a side handed in.
  mutating func charge(_ side: SideIndex, _ octets: Int) {
    guard octets > 0 else { return }
    let reason = decide { admission, state in
      state.spend(octets, side)
      return admission.charge(octets, side, now: state.clock.monotonic)
    }
    if let reason { finish(side.hairpin, reason) }
  }

  /// Ends those that are over of some hairpins.
  mutating func sweepHairpins(_ count: Int) {
    let policy = policy
    for (place, reason) in decide({ $0.sweep(count, under: policy, $1) }) { finish(place, reason) }
  }

  /// Ends a hairpin: tells both sides, leaves a record, remembers the ticket.
  mutating func finish(_ hairpin: Int, _ reason: HairpinReason) {
    guard decide({ admission, _ in admission.hairpins[hairpin].isOpen }) else { return }
    for end in HairpinEnd.allCases {
      let side = SideIndex(hairpin: hairpin, end)
      guard state.sides[side].port.isAllocated else { continue }
      if state.sides[side].holder.isProven {
        tell(side, HairpinMessage.end(token: state.sides[side].port.token, reason: reason.rawValue).encoded)
      }
      release(side)
    }
    decide { $0.finish(hairpin, reason, &$1) }
  }
}
