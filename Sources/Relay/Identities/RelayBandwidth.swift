import PacketIO

/// How much may pass of all pairs together, of each gateway, and how much of each pair's bandwidth its handshakes may take.
///
/// Where the relay has a limit, the lowest class loses first, and of one class those gateways that send more than their
/// share: so who opens many pairs gets no more than who has one.
///
/// A pair's data waits for no handshake, and a new handshake is not to be lost because the data of before has used up
/// everything. So an eighth of what a pair has in each direction is for its handshakes, and what they take is missing for
/// data. Where nothing is bound yet there is no row of the pair's that could keep count, so this does, by gateway.
struct RelayBandwidth: ~Copyable {
  /// Which part of a pair's bandwidth its handshakes may take.
  private static let part: UInt64 = 8
  /// Bytes of them that may come at once: those of a few handshakes. What nobody can have signed gets half of it.
  private static let burst: UInt64 = 16_384
  /// Partners of one gateway whose handshakes are counted at a time.
  private static let mostPartners = 1024
  /// Steps of what all have at once: one for each class, and one for who is above his share.
  private static let steps = 9

  private var total: TokenBucket
  /// Of all, what packets may have that nobody has signed, and for which no gateway's share answers.
  private var unproven: TokenBucket
  private let totalBurst: Int
  private var gateways: FairRate
  /// When all handshake packets so far would have left at their rate: by the sender's place, then the receiver's.
  private var due: [[Int: MonotonicTime]]

  /// - Parameters:
  ///   - bitRate: of the whole relay; 0: no limit.
  ///   - gateways: as many as may be enrolled.
  init(bitRate: UInt64, gateways: Int, now: MonotonicTime) {
    totalBurst = max(Int(clamping: bitRate / 160), 65_536)
    total = TokenBucket(bitRate: bitRate, burst: UInt64(clamping: totalBurst), now: now)
    unproven = TokenBucket(
      bitRate: bitRate / RelayBandwidth.part, burst: UInt64(clamping: totalBurst) / RelayBandwidth.part, now: now)
    self.gateways = FairRate(
      bytesPerSecond: Double(bitRate) / 8, burst: Double(totalBurst / RelayBandwidth.steps), holders: gateways,
      now: now)
    due = Array(repeating: [:], count: gateways)
  }

  var isLimited: Bool { total.isLimited }

  /// Whether a gateway may send so much, in a class. The lowest loses first: each next one may use a ninth more of what can
  /// come at once, and who is above his share a ninth less.
  @inline(__always)
  mutating func admits(_ bytes: Int, of sender: Int, priority: UInt8, now: MonotonicTime) -> Bool {
    guard total.isLimited else { return true }
    let isWithin = gateways.offer(bytes, by: sender, now: now)
    return leaves(7 - Int(truncatingIfNeeded: min(priority, 7)) + (isWithin ? 0 : 1), now: now)
  }

  @inline(__always) private mutating func leaves(_ steps: Int, now: MonotonicTime) -> Bool {
    total.available(now: now) > totalBurst / RelayBandwidth.steps * steps
  }

  /// Takes what passes from what all have, and the gateway.
  @inline(__always) mutating func take(_ bytes: Int, of sender: Int, now: MonotonicTime) {
    guard total.isLimited else { return }
    total.take(bytes)
    gateways.take(bytes, by: sender, now: now)
  }

  /// Whether a handshake packet passes; what it has is taken then.
  /// - Parameters:
  ///   - isProven: its sender has signed it. Else anybody may have sent it in his name, and it takes nothing of his share.
  ///   - bitRate: of the pair, in each direction; 0: no limit.
  mutating func admitsHandshake(
    _ bytes: Int, from sender: Int, to receiver: Int, isProven: Bool, bitRate: UInt64, now: MonotonicTime
  ) -> Bool {
    let isAdmitted =
      isProven
      ? admits(bytes, of: sender, priority: 7, now: now)
      : !total.isLimited || leaves(1, now: now) && unproven.available(now: now) > 0
    guard isAdmitted, bitRate == 0 || charge(bytes, sender, receiver, isProven, bitRate, now) else { return false }
    if isProven {
      take(bytes, of: sender, now: now)
    } else {
      total.take(bytes)
      unproven.take(bytes)
    }
    return true
  }

  private mutating func charge(
    _ bytes: Int, _ sender: Int, _ receiver: Int, _ isProven: Bool, _ bitRate: UInt64, _ now: MonotonicTime
  ) -> Bool {
    if due[sender].count >= RelayBandwidth.mostPartners, due[sender][receiver] == nil {
      due[sender] = due[sender].filter { $0.value > now }
      guard due[sender].count < RelayBandwidth.mostPartners else { return false }
    }
    let secondsPerByte = Double(8 * RelayBandwidth.part) / Double(bitRate)
    let begin = max(due[sender][receiver] ?? now, now)
    let burst = Double(isProven ? RelayBandwidth.burst : RelayBandwidth.burst / 2)
    guard Double(begin.nanoseconds(since: now)) <= secondsPerByte * burst * 1e9 else { return false }
    due[sender][receiver] = begin.adding(seconds: secondsPerByte * Double(bytes))
    return true
  }
}
