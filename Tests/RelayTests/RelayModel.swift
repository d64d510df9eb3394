import PacketIO

/// What relays may do, by what they have been told: slow, obvious, and of gateways' numbers, so that it has nothing in
/// common with what it judges.
struct RelayModel {
  struct Pair: Hashable, Comparable, CustomStringConvertible {
    let a: Int
    let b: Int

    init(_ a: Int, _ b: Int) { (self.a, self.b) = (min(a, b), max(a, b)) }

    func has(_ gateway: Int) -> Bool { gateway == a || gateway == b }
    static func < (x: Pair, y: Pair) -> Bool { (x.a, x.b) < (y.a, y.b) }
    var description: String { "\(a)-\(b)" }
  }

  /// What a control system says to one relay.
  struct Update {
    let number: UInt64
    /// Nil: it is a whole policy.
    let since: UInt64?
    var removed: Set<Pair> = []
    var allowed: Set<Pair> = []
  }

  struct Relay {
    var allowed: Set<Pair> = []
    /// Of the last update that counted.
    var number: UInt64 = 0
    /// Where each gateway has enrolled from last.
    var enrolled: [Int: Endpoint] = [:]
    var sequences: [Int: UInt64] = [:]
  }

  var relays: [Relay]

  /// A relay gets an update.
  /// - Returns: whether it is to count.
  mutating func take(_ update: Update, at relay: Int) -> Bool {
    guard update.number > relays[relay].number, update.since.map({ $0 == relays[relay].number }) ?? true else {
      return false
    }
    let before = update.since == nil ? [] : relays[relay].allowed
    relays[relay].allowed = before.subtracting(update.removed).union(update.allowed)
    relays[relay].number = update.number
    return true
  }

  /// All but its policy is gone.
  mutating func restart(_ relay: Int) {
    relays[relay].enrolled = [:]
    relays[relay].sequences = [:]
  }

  /// A relay says that a gateway has enrolled.
  /// - Parameter sender: whose message it was; nil: somebody has sent it again from elsewhere.
  /// - Returns: what is wrong about that.
  mutating func enrol(_ sender: Int?, _ sequence: UInt64, from source: Endpoint, at relay: Int) -> String? {
    guard let sender else { return "somebody enrols in another's name at \(source)" }
    guard relays[relay].allowed.contains(where: { $0.has(sender) }) else {
      return "\(sender) enrols, and nobody names it"
    }
    let last = relays[relay].sequences[sender] ?? 0
    guard sequence > last || sequence == last && relays[relay].enrolled[sender] == source else {
      return "an old enrolment of \(sender) counts"
    }
    relays[relay].sequences[sender] = sequence
    relays[relay].enrolled[sender] = source
    return nil
  }

  /// A relay forwards a packet of one gateway to another.
  /// - Parameters:
  ///   - source: where it came from.
  ///   - receiver: for whom it is; nil: nobody knows.
  /// - Returns: what is wrong about that.
  func forward(from sender: Int, at source: Endpoint, to receiver: Int?, at address: Endpoint, by relay: Int) -> String?
  {
    guard let receiver else { return "a packet of \(sender) that is for nobody goes to \(address)" }
    let known = relays[relay]
    if !known.allowed.contains(Pair(sender, receiver)) { return "\(sender) reaches \(receiver) outside the policy" }
    if known.enrolled[sender] != source {
      return "a packet of \(sender) passes from \(source), where it is not enrolled"
    }
    if known.enrolled[receiver] != address {
      return "a packet for \(receiver) goes to \(address), where it is not enrolled"
    }
    return nil
  }
}
