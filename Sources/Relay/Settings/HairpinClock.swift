public import PacketIO

/// Both clocks at one moment. The rules take them as an argument, so that tests have their own.
public struct HairpinClock: Sendable, BitwiseCopyable {
  public var monotonic: MonotonicTime
  /// Seconds since 1970 UTC.
  public var wall: Int64

  public init(monotonic: MonotonicTime, wall: Int64) {
    self.monotonic = monotonic
    self.wall = wall
  }
}
