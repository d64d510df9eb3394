/// Finds the highest rate that a path carries within a bound on losses, by bisection.
public struct RateSearch: Sendable {
  public struct Result: Sendable, Equatable {
    /// The highest rate tried at which the loss stayed within `bound`, as it was received; 0: none did.
    public var bounded: Double
    /// The highest rate tried at which nothing was lost; 0: none did.
    public var lossless: Double
  }

  public struct Probe: Sendable, Equatable {
    /// Share lost, 0 to 1.
    public var loss: Double
    /// Received, a second.
    public var received: Double
    /// What the sender managed, which may be less than it was asked for.
    public var sent: Double
    public init(loss: Double, received: Double, sent: Double) {
      self.loss = loss
      self.received = received
      self.sent = sent
    }
  }

  /// Share of losses that `Result.bounded` allows.
  public var bound = 0.01
  /// The search ends when the next step would be smaller than this share.
  public var resolution = 0.04
  /// Times a rate that lost something is tried again before it counts as too high: a single hiccup is not a limit.
  public var retries = 1

  public init() {}

  /// - Parameter probe: sends at the given rate, nil meaning flat out, and tells what became of it.
  public func run(_ probe: (Double?) throws -> Probe) rethrows -> Result {
    // What gets through flat out is a first guess at the limit; overload often lets less through than is possible,
    // so the search goes from well below it to what was sent.
    let flat = try probe(nil)
    if flat.loss == 0 { return Result(bounded: flat.received, lossless: flat.received) }
    var lossless = 0.0
    let guess = max(flat.received, flat.sent / 1000)
    let bounded =
      flat.loss <= bound
      ? flat.received
      : try bisect(from: guess, below: flat.sent, allowing: bound, &lossless, probe)
    let clean = try bisect(from: lossless > 0 ? lossless : bounded / 2, below: bounded, allowing: 0, &lossless, probe)
    return Result(bounded: bounded, lossless: max(clean, lossless))
  }

  private func bisect(
    from guess: Double, below ceiling: Double, allowing bound: Double, _ lossless: inout Double,
    _ probe: (Double?) throws -> Probe
  ) rethrows -> Double {
    var best = 0.0
    var low = 0.0
    var high = ceiling
    var rate = guess
    for _ in 0..<24 {
      if high - low <= resolution * high || high <= 0 { break }
      var result = try probe(rate)
      for _ in 0..<retries where result.loss > bound && result.loss < bound + 0.05 { result = try probe(rate) }
      if result.loss == 0 { lossless = max(lossless, result.received) }
      if result.loss <= bound {
        best = max(best, result.received)
        low = rate
        // The sender cannot go faster: neither can the search.
        if result.sent < 0.95 * rate { break }
      } else {
        high = rate
      }
      // Until something works, look downwards in large steps.
      rate = low == 0 ? high / 2 : (low + high) / 2
    }
    return best
  }
}
