import ArgumentParser
import Dataplane
import Lab
import PacketIO

/// `vpnbench crypto`: the ciphers alone, in both libraries.
struct CryptoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "crypto", abstract: "Time to seal and to open one packet, for each cipher, engine and size.")

  @OptionGroup var output: OutputOptions

  @Option(parsing: .upToNextOption, help: "Bytes of a packet, 1 to 65536.")
  var sizes = [64, 256, 576, 1024, 1400, 4096, 9000, 16384, 65536]

  @Option(help: "Seconds of each measurement.")
  var seconds = 0.05

  func validate() throws {
    guard sizes.allSatisfy({ (1...65536).contains($0) }) else { throw ValidationError("--sizes are from 1 to 65536") }
    guard (0.001...60).contains(seconds) else { throw ValidationError("--seconds is from 0.001 to 60") }
  }

  func run() throws {
    var report = Report(scenario: "crypto")
    report.settings = ["seconds": "\(seconds)", "sizes": sizes.map(String.init).joined(separator: " ")]
    let combinations = Cipher.allCases.flatMap { cipher in
      CipherEngine.available.filter { $0.supports(cipher) }.map { (cipher, $0) }
    }
    report.subjects = combinations.map { CryptoCommand.subject($0, $1) }
    let progress = Progress(total: output.rounds * combinations.count)
    for round in 0..<output.rounds {
      for (cipher, engine) in combinations {
        progress.step("round \(round + 1) of \(output.rounds): \(cipher.rawValue), \(engine.rawValue)")
        let subject = CryptoCommand.subject(cipher, engine)
        for size in sizes {
          var timing = try CipherTiming(cipher, engine, size: size)
          let times = try timing.run(seconds: seconds)
          report.add(times.seal, CryptoCommand.metric("Seal one packet", "seal", size), of: subject)
          report.add(times.open, CryptoCommand.metric("Open one packet", "open", size), of: subject)
        }
      }
    }
    progress.finish()
    report.warnOfNoise([CryptoCommand.metric("", "seal", sizes[0]).id])
    try output.deliver(report)
  }

  private static func subject(_ cipher: Cipher, _ engine: CipherEngine) -> Report.Entry {
    Report.Entry(name: "\(cipher.rawValue) \(engine.rawValue)", isBound: false, note: nil)
  }

  private static func metric(_ title: String, _ id: String, _ size: Int) -> Report.Metric {
    Report.Metric(id: "\(id)-\(size)", title: title, unit: "ns", higherIsBetter: false, column: "\(size) B")
  }
}

/// Seals and opens packets of one size until some time has passed.
private struct CipherTiming: ~Copyable {
  private let aead: AEAD
  private let size: Int
  private let pool: BufferPool
  private let plain: PacketBytes
  /// Where sealed packets lie, all in cache.
  private var sealed: [PacketBytes] = []

  init(_ cipher: Cipher, _ engine: CipherEngine, size: Int) throws {
    var random = SplitMix64(seed: UInt64(size))
    let key = (0..<cipher.keyMaterialLength).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    aead = AEAD(cipher, key: KeyMaterial(key), engine: engine)
    self.size = size
    // A batch fills a quarter of a usual second-level cache, or a worker's usual batch, whichever is less.
    let count = min(max(262_144 / size, 1), 64)
    pool = BufferPool(count: count + 1)
    guard let first = pool.take() else { throw LabError("no packet buffer") }
    plain = pool.bytes(first).slice(BufferPool.headroom, size)
    for i in 0..<size { plain[i] = UInt8(truncatingIfNeeded: random.next()) }
    while let buffer = pool.take() {
      sealed.append(pool.bytes(buffer).slice(BufferPool.headroom, size + AEAD.icvLength))
    }
  }

  /// Nanoseconds a packet.
  mutating func run(seconds: Double) throws -> (seal: Double, open: Double) {
    var sealing: UInt64 = 0
    var opening: UInt64 = 0
    var packets: UInt64 = 0
    var rejected = 0
    _ = turn(&packets, &rejected)  // warm caches
    packets = 0
    while Double(sealing + opening) < seconds * 1e9 {
      let times = turn(&packets, &rejected)
      sealing += times.seal
      opening += times.open
    }
    if rejected > 0 { throw LabError("\(rejected) packets that were sealed could not be opened") }
    return (Double(sealing) / Double(packets), Double(opening) / Double(packets))
  }

  private borrowing func turn(_ packets: inout UInt64, _ rejected: inout Int) -> (seal: UInt64, open: UInt64) {
    let first = packets
    let begin = MonotonicTime.current()
    for i in 0..<sealed.count {
      let sequence = first &+ UInt64(i) &+ 1
      aead.seal(
        iv: sequence, AdditionalData(spi: 256, sequence: sequence, extended: true), from: plain, to: sealed[i])
    }
    let middle = MonotonicTime.current()
    for i in 0..<sealed.count {
      let sequence = first &+ UInt64(i) &+ 1
      let data = AdditionalData(spi: 256, sequence: sequence, extended: true)
      if !aead.open(iv: sequence, data, inPlace: sealed[i]) { rejected += 1 }
    }
    let end = MonotonicTime.current()
    packets += UInt64(sealed.count)
    return (middle.nanoseconds(since: begin), end.nanoseconds(since: middle))
  }
}
