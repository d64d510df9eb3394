/// How the other end of a stream is told that a long run of sealed packets follows, so that it need not look at each: by
/// a message, which is whose end it is to define.
struct RunAnnouncement: Sendable {
  /// Bytes of the message, its four zero bytes included.
  let length: Int
  /// Bytes of the longest run, lengths included.
  let longestRun: Int
  /// The message of so many bytes, lengths included, and packets; with the four zero bytes.
  let message: @Sendable (_ bytes: Int, _ packets: Int) -> [UInt8]
}
