import Glibc
import PacketIO

/// Errors of a socket, counted by kind.
struct ErrorCounts: BitwiseCopyable {
  private var unreachable: UInt64 = 0
  private var tooBig: UInt64 = 0
  private var noBuffer: UInt64 = 0
  private var refused: UInt64 = 0
  private var other: UInt64 = 0

  mutating func count(_ error: Int32, _ packets: UInt64) {
    switch error {
    case ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, EADDRNOTAVAIL: unreachable &+= packets
    case EMSGSIZE: tooBig &+= packets
    case ENOBUFS, ENOMEM, EAGAIN: noBuffer &+= packets
    case ECONNREFUSED, EPERM, EACCES: refused &+= packets
    default: other &+= packets
    }
  }

  func counters(prefix: String, loss: TransportCounter.Loss? = nil) -> [TransportCounter] {
    [
      ("unreachable", unreachable), ("too-big", tooBig), ("no-buffer", noBuffer), ("refused", refused),
      ("other", other),
    ]
    .map { TransportCounter(name: "\(prefix)-\($0.0)", value: $0.1, loss: loss) }
  }
}
