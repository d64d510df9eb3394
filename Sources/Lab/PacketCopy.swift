import Glibc

/// Copies packets from one device to another, as they are.
public enum PacketCopy {
  /// Runs until `source` or `sink` is gone; returns why, as an errno. What the sink refuses is dropped.
  /// - Parameters:
  ///   - source: a descriptor from which every read is one packet, such as a TUN queue.
  ///   - sink: a descriptor to which every write is one.
  public static func run(from source: Int32, to sink: Int32) -> Int32 {
    System.setBlocking(source)
    System.setBlocking(sink)
    let buffer = LabBuffer(count: 1 << 17)
    while true {
      let n = System.read(source, into: buffer)
      if n == -Int(EINTR) { continue }
      if n <= 0 { return Int32(-n) }
      let written = System.write(sink, buffer, count: n)
      if written == -Int(EBADF) || written == -Int(EBADFD) { return Int32(-written) }
    }
  }
}
