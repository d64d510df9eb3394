import PacketIO
import TestSupport

/// A gateway's connection to the world: one of its transports.
struct Place: Hashable, Comparable {
  var gateway: Int
  var interface: Int

  static func < (a: Place, b: Place) -> Bool { (a.gateway, a.interface) < (b.gateway, b.interface) }
}

/// A datagram under way.
struct Flight {
  var datagram: [UInt8]
  /// As the receiver sees it, and where the sender has sent it.
  var source: Endpoint
  var destination: Endpoint
  var link: Int
  /// Where the link leads.
  var to: Place
  var sentAt: MonotonicTime
  /// What a gateway has made it as; nil: somebody has invented it.
  var seal: Seal?
  var isCorrupted = false
}

/// What is done to datagrams one way between two places.
struct Link {
  /// Of a thousand datagrams each.
  struct Faults {
    /// Nanoseconds under way.
    var delay: UInt64 = 2_000_000
    /// What each datagram may take longer, alone: above the time between two of them they overtake each other.
    var jitter: UInt64 = 0
    var lost = 0
    var duplicated = 0
    var corrupted = 0
    /// So many take `lateness` longer.
    var late = 0
    var lateness: UInt64 = 100_000_000
    /// Bytes of the largest IP packet; larger ones vanish.
    var mtu = 1500
    /// Who sends larger ones is told.
    var tells = false
    /// False: a partition.
    var isUp = true
  }

  enum Loss: UInt8, CaseIterable { case chance, tooLarge, partition }

  enum Fate {
    case lost(Loss)
    /// The copies that arrive, and after how many nanoseconds.
    case arrives([(after: UInt64, isCorrupted: Bool)])
  }

  /// Bytes of the headers around a datagram.
  static let headers = 28

  var faults = Faults()
  private(set) var sent = 0
  private(set) var copies = 0
  private(set) var damaged = 0
  private(set) var lost: [Loss: Int] = [:]
  var received = 0

  /// What was sent and doubled, less what was received and lost: what is still under way.
  var underway: Int { sent + copies - received - lost.values.reduce(0, +) }

  mutating func carry(bytes: Int, _ numbers: inout SeededNumbers) -> Fate {
    sent += 1
    let loss: Loss?
    if !faults.isUp {
      loss = .partition
    } else if bytes + Link.headers > faults.mtu {
      loss = .tooLarge
    } else {
      loss = numbers.chance(faults.lost) ? .chance : nil
    }
    if let loss {
      lost[loss, default: 0] += 1
      return .lost(loss)
    }
    var arrivals = [(after: time(&numbers), isCorrupted: numbers.chance(faults.corrupted))]
    if arrivals[0].isCorrupted { damaged += 1 }
    if numbers.chance(faults.duplicated) {
      copies += 1
      arrivals.append((after: time(&numbers), isCorrupted: false))
    }
    return .arrives(arrivals)
  }

  private func time(_ numbers: inout SeededNumbers) -> UInt64 {
    var time = faults.delay
    if faults.jitter > 0 { time += UInt64.random(in: 0...faults.jitter, using: &numbers) }
    if numbers.chance(faults.late) { time += faults.lateness }
    return time
  }
}
