/// The anti-replay window of an inbound association (RFC 6479).
struct ReplayWindow: ~Copyable {
  /// - Parameters:
  ///   - size: 64 to 8192 packets, a multiple of 64.
  ///   - lowest: numbers below it count as seen.
  init(size: Int, extended: Bool, lowest: UInt64) { fatalError() }
  /// The full sequence number that 32 bits from the wire stand for (RFC 4303 appendix A2.2).
  borrowing func infer(_ low: UInt32) -> UInt64 { fatalError() }
  /// False: seen before, or left of the window. Call before authentication.
  borrowing func mayAccept(_ sequence: UInt64) -> Bool { fatalError() }
  /// Marks it seen and moves the window; false when it was already. Call after authentication.
  mutating func commit(_ sequence: UInt64) -> Bool { fatalError() }
  /// The highest number accepted.
  var highest: UInt64 { fatalError() }
}
