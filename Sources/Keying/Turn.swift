import Identity
import KeyDerivation
import PacketIO

/// What every step of an exchange works with: the time, randomness, and where what is to be done is put.
struct KeyingTurn {
  let now: MonotonicTime
  let settings: KeyExchange.Settings
  var random: any RandomNumberGenerator & Sendable
  var spis: SPIPool
  /// Where relays see this side, and its own addresses; nil: nobody is told.
  let reflexive: LocatorSet?
  var actions: [KeyingAction] = []
  /// A CLOSE that was sent, and is once more.
  var farewell: Farewells.Farewell?

  mutating func bytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count { bytes.append(number: random.next() as UInt64) }
    return Array(bytes.prefix(count))
  }

  /// `nominal` seconds, up to `spread` of them more or less.
  mutating func seconds(_ nominal: Double, spread: Double) -> UInt64 {
    let share = Double(random.next() as UInt64 >> 11) / Double(UInt64(1) << 53)
    return UInt64(nominal * (1 + spread * (2 * share - 1)) * 1e9)
  }

  mutating func makeKey(_ group: DiffieHellmanGroup) -> DiffieHellmanKey {
    while true {
      var scalar = bytes(group.secretLength)
      if let key = DiffieHellmanKey(group: group, scalar: KeyMaterial(taking: &scalar)) { return key }
    }
  }

  mutating func send(_ bytes: [UInt8], along path: Path) { actions.append(.send(bytes, along: path)) }
  mutating func report(_ event: KeyingEvent) { actions.append(.report(event)) }
}

/// SPIs that associations have, or had not long ago (RFC 4301 §4.1: whoever receives chooses them). One stands for
/// sixteen: its last four bits name the worker.
struct SPIPool {
  private var taken: Set<UInt32> = []
  private var free: [(at: MonotonicTime, spi: UInt32)] = []

  /// Seconds for which packets under an SPI may still be under way.
  private static let rest: UInt64 = 120_000_000_000

  mutating func take(_ random: inout any RandomNumberGenerator & Sendable, now: MonotonicTime) -> UInt32 {
    while let first = free.first, first.at <= now {
      taken.remove(first.spi)
      free.removeFirst()
    }
    while true {
      let spi = UInt32(truncatingIfNeeded: random.next() as UInt64) & ~15
      if spi >= 256, taken.insert(spi).inserted { return spi }
    }
  }

  /// Some that others have: those of manual keys.
  mutating func reserve(_ spi: UInt32) { taken.insert(spi & ~15) }

  mutating func giveBack(_ spi: UInt32, now: MonotonicTime) {
    free.append((now.adding(nanoseconds: SPIPool.rest), spi & ~15))
  }
}
