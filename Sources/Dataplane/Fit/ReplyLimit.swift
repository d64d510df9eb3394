import PacketIO

/// How many "too big" messages go.
struct ReplyLimit: ~Copyable {
  /// To this side's own hosts.
  private var own = TokenBucket(perSecond: 100, burst: 20)
  /// To peers whose packets are forwarded, since the last tick.
  var shares = Shares(.sizeMessages, capacity: 20)

  /// - Parameter sender: whose packet it is about.
  mutating func takeOne(for sender: Holder, now: MonotonicTime) -> Bool {
    sender.row < 0 ? own.takeOne(now: now) : shares.take(for: sender)
  }
}
