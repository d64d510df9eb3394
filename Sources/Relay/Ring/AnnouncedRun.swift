/// Records that a gateway announced (`HairpinMessage.run`), on their way from its stream to its partner's without being
/// looked at.
struct AnnouncedRun: BitwiseCopyable {
  /// Of all its records, lengths included; 0: there is none.
  var bytes = 0
  var packets = 0
  /// Bytes that have yet to be taken from the stream.
  var left = 0
  /// Bytes in the pipe.
  var inPipe = 0
  var pipe: PipePool.Pipe?
  /// The partner's stream for which it is; on another one it would begin inside a record.
  var stream: UInt64 = 0

  init() {}

  init(bytes: Int, packets: Int, stream: UInt64) {
    self.bytes = bytes
    self.packets = packets
    self.stream = stream
    left = bytes
  }

  var isOpen: Bool { bytes > 0 }
  /// Whether some of it has gone to the partner, and not yet all.
  var isPartial: Bool { bytes > 0 && left < bytes && left + inPipe > 0 }

  /// Packets in the first `count` bytes, taken to be of equal size; exact for all. Whoever announces chooses `packets`, so
  /// nothing is charged by it: a run's bytes count with their lengths.
  func packets(in count: Int) -> Int { bytes > 0 ? packets * count / bytes : 0 }
}
