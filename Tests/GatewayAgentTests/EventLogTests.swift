import Dataplane
import Identity
import KeyAgreement
import Logging
import PacketIO
import Synchronization
import Testing

@testable import Gateway
@testable import Keying

/// What a gateway's log says of what peers and strangers do.
@Suite struct EventLogTests {
  /// Lines as "message; key=value …", in the order of the keys.
  private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func append(_ line: String) { lines.withLock { $0.append(line) } }
  }

  private struct Handler: LogHandler {
    let lines: Lines
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
      lines.append("\(event.message); " + all.map { "\($0.key)=\($0.value)" }.joined(separator: " "))
    }
  }

  private let lines = Lines()
  private let now = MonotonicTime(nanoseconds: 1_000_000_000_000)
  private let path = Path(endpoint: Endpoint("192.0.2.7", defaultPort: 4500)!)

  private func log() -> EventLog {
    let lines = lines
    return EventLog(Logger(label: "test", factory: { _ in Handler(lines: lines) }), now: now)
  }

  private func tag(_ number: UInt8) -> HostIdentityTag {
    HostIdentity(p256Scalar: [UInt8](repeating: number, count: 32), deterministic: true).tag
  }

  private func session(isPostQuantum: Bool, awaits: Bool) -> SessionReport {
    SessionReport(
      suite: ESPSuite(.aes128GCM), group: .x25519, isPostQuantum: isPostQuantum, awaitsPostQuantum: awaits,
      duration: 0.01, rekeys: 0, since: now, nextRekey: now)
  }

  @Test func whoIsThereInsteadIsNamed() {
    var log = log()
    let stranger = Stranger(gid: tag(3), wanted: tag(5), path: path)
    log.log(.keying(.failed(partner: "beta", .otherKey, by: stranger)), now: now)
    log.log(.keying(.stranger(stranger, partner: nil)), now: now)
    log.log(.keying(.stranger(stranger, partner: "beta")), now: now)
    let all = lines.all
    #expect(all.count == 3 && all.allSatisfy { $0.contains("address=192.0.2.7:4500") })
    #expect(all.allSatisfy { $0.contains("says-it-is=\(tag(3))") })
    #expect(all[0].hasPrefix("no keys: somebody with another key is there") && all[0].contains("peer=beta"))
    #expect(all[1].hasPrefix("somebody who is no peer") && all[1].contains("asks-for=\(tag(5))"))
    #expect(all[2].hasPrefix("the peer, or somebody in its name") && all[2].contains("peer=beta"))
  }

  /// However many there are, strangers take a part of the log only, and peers' lines come.
  @Test func strangersDoNotFloodTheLog() {
    var log = log()
    var later = now
    for second in 0..<1000 {
      later = now.adding(seconds: Double(second))
      let from = Path(endpoint: Endpoint(address: IPAddress(v4: UInt32(0x0A00_0000 + second)), port: 4500))
      log.log(.keying(.stranger(Stranger(gid: tag(3), wanted: tag(5), path: from), partner: nil)), now: later)
      log.flush(now: later)
    }
    let told = lines.all.count { $0.hasPrefix("somebody who is no peer") }
    #expect((5...106).contains(told), "\(told)")
    let changed = Event.pathChanged(peer: "beta", path: path)
    log.log(changed, now: later)
    #expect(lines.all.last?.hasPrefix("peer is at another address") == true)
  }

  /// A peer that says that it is at ever other places, to none of which anything can be sent, keeps no other's line out.
  @Test func placesWithoutEndKeepNobodyOut() {
    var log = log()
    let error = SystemError("send", errno: 101)
    var later = now
    for second in 0..<2000 {
      later = now.adding(seconds: Double(second))
      for place in 0..<8 {
        let address = IPAddress(v4: UInt32(0x0A00_0000 + 8 * second + place))
        log.log(
          .transportError(
            transport: 0, path: Path(endpoint: Endpoint(address: address, port: 4500)), peer: "mallory", error: error),
          now: later)
      }
      log.flush(now: later)
    }
    log.log(.pathChanged(peer: "beta", path: path), now: later)
    for second in 1...10 { log.flush(now: later.adding(seconds: Double(second))) }
    #expect(lines.all.last?.contains("peer=beta") == true || lines.all.suffix(5).contains { $0.contains("peer=beta") })
  }

  @Test func postQuantumKeysAreAwaited() {
    var log = log()
    for (isPostQuantum, awaits) in [(false, true), (true, false), (false, false)] {
      let session = session(isPostQuantum: isPostQuantum, awaits: awaits)
      log.log(.keying(.established(partner: "beta", session)), now: now)
    }
    let words = lines.all.compactMap { $0.split(separator: " ").first { $0.hasPrefix("post-quantum") } }
    #expect(words == ["post-quantum=pending", "post-quantum=yes", "post-quantum=no"])
  }

  /// Whose packets do not go, and what to look at.
  @Test func failuresToSendNameThePeer() {
    var log = log()
    let error = SystemError("send to 192.0.2.7:4500", errno: 101)
    log.log(.transportError(transport: 0, path: path, peer: "beta", error: error), now: now)
    log.log(.transportRecovered(transport: 0, path: path, peer: "beta", untold: 3), now: now)
    let all = lines.all
    #expect(all.count == 2 && all.allSatisfy { $0.contains("peer=beta") })
    #expect(all[0].hasPrefix("cannot send: has this machine a route to that address") && all[1].contains("failures=4"))
  }
}
