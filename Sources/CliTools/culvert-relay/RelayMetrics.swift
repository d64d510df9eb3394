import Foundation
import Glibc
import Host
import PacketIO
import Relay
import Synchronization

/// Figures as a monitoring system reads them: OpenMetrics 1.0 in answer to GET /metrics, over HTTP/1.1 (RFC 9112).
final class RelayMetrics: Sendable {
  private let listener: Int32
  private let waker: Waker
  /// Nanoseconds for which figures are shown once more: to copy them takes the packet thread's time.
  private let freshness: UInt64
  private let newest = Mutex<(text: String, at: MonotonicTime)?>(nil)
  /// Seconds that a reader may take to ask, and to take the answer.
  private static let seconds = 2
  private static let longestRequest = 8192

  /// Listens; nobody is answered yet.
  /// - Throws: `OperatorError` when the address cannot be listened on.
  init(_ endpoint: Endpoint, freshness: Duration = .seconds(1)) throws {
    self.freshness = freshness.nanoseconds
    waker = try Waker()
    listener = TCPSocket.listen(endpoint)
    guard listener >= 0 else {
      throw OperatorError(
        "metrics cannot be served on \(endpoint): \(SystemError("listen", errno: -listener).reason)",
        remedy: "choose another address or port for 'metrics'")
    }
  }

  /// Where it listens.
  var port: UInt16 { TCPSocket.local(listener)?.port ?? 0 }

  /// Answers one reader after the other, on a thread of its own.
  func start(_ text: @escaping @Sendable () -> String) {
    Acceptor.start("metrics", listener, until: waker, seconds: RelayMetrics.seconds) { [self] in serve($0, text) }
  }

  func stop() { waker.wake() }

  private func serve(_ connection: Int32, _ text: () -> String) {
    var head: [UInt8] = []
    let end = Array("\r\n\r\n".utf8)
    let limit = MonotonicTime.current().adding(seconds: Double(RelayMetrics.seconds))
    while head.firstRange(of: end) == nil {
      let left = Int(clamping: limit.nanoseconds(since: .current()) / 1_000_000)
      guard head.count < RelayMetrics.longestRequest, left > 0 else { return }
      UnixSocket.setTimeLimit(connection, milliseconds: left)
      guard let more = try? UnixSocket.read(connection, limit: 2048) else { return }
      head += more
    }
    UnixSocket.setTimeLimit(connection, seconds: RelayMetrics.seconds)
    let line = String(decoding: head.prefix { $0 != UInt8(ascii: "\r") }, as: UTF8.self)
    let words = line.split(separator: " ", omittingEmptySubsequences: false)
    let isAsked = words.count == 3 && words[0] == "GET" && words[1].prefix { $0 != "?" } == "/metrics"
    let body = Array((isAsked ? fresh(text) : "see /metrics\n").utf8)
    let type = isAsked ? "application/openmetrics-text; version=1.0.0; charset=utf-8" : "text/plain; charset=utf-8"
    let answer =
      "HTTP/1.1 \(isAsked ? "200 OK" : "404 Not Found")\r\nContent-Type: \(type)\r\nContent-Length: \(body.count)\r\n"
      + "Connection: close\r\n\r\n"
    try? UnixSocket.write(connection, Array(answer.utf8) + body)
    UnixSocket.endSending(connection)
  }

  private func fresh(_ text: () -> String) -> String {
    newest.withLock { newest in
      let now = MonotonicTime.current()
      if let newest, now.nanoseconds(since: newest.at) < freshness { return newest.text }
      let text = text()
      newest = (text, now)
      return text
    }
  }

  // MARK: Text

  /// One family of figures, with its lines.
  private struct Family {
    let name: String
    let type: String
    let unit: String?
    let help: String
    let samples: [(labels: String, value: String)]

    var text: String {
      var lines = ["# TYPE \(name) \(type)"]
      if let unit { lines.append("# UNIT \(name) \(unit)") }
      lines.append("# HELP \(name) \(help)")
      let suffix = type == "counter" ? "_total" : ""
      lines += samples.map { "\(name)\(suffix)\($0.labels) \($0.value)" }
      return lines.joined(separator: "\n") + "\n"
    }
  }

  /// Everything, in the text format of OpenMetrics 1.0. Pairs are counted and not named: there may be thousands.
  static func text(_ hairpins: HairpinStatistics, _ relay: RelayReport?) -> String {
    var families = [
      gauge("culvert_hairpins", "Hairpins that are open, or wait for their gateways.", ["": "\(hairpins.hairpins)"]),
      counter(
        "culvert_hairpin_forwarded_packets", "Sealed packets that hairpins have forwarded.",
        ["": hairpins[.forwardedPackets]]),
      counter(
        "culvert_hairpin_forwarded_bytes", unit: "bytes", "Bytes of them.", ["": hairpins[.forwardedBytes]]),
      counter(
        "culvert_hairpin_events", "What else hairpins have counted.",
        Dictionary(
          uniqueKeysWithValues: HairpinCounter.allCases.filter { $0 != .forwardedPackets && $0 != .forwardedBytes }
            .map { ("{event=\"\($0.name)\"}", hairpins[$0]) })),
    ]
    if let relay { families += of(relay) }
    return families.map(\.text).joined() + "# EOF\n"
  }

  private static func of(_ relay: RelayReport) -> [Family] {
    let bound = relay.pairs.count { $0.isBound }
    let shares = [
      "all": relay.load.share, "thread": relay.load.thread, "bandwidth": relay.load.bandwidth,
      "pairs": relay.load.pairs,
    ]
    let count = { (name: String) in relay.counters[name] ?? 0 }
    let prefix = "dropped-"
    let drops = Dictionary(
      uniqueKeysWithValues: RelayDrop.allCases.map { ("{reason=\"\($0.name)\"}", count(prefix + $0.name)) })
    let events = ["enrolments", "holds", "bound", "unbound", "notices"]
    return [
      gauge(
        "culvert_relay_load_ratio", unit: "ratio",
        "How busy the relay is, over two seconds; 'all' is the greatest share.",
        Dictionary(uniqueKeysWithValues: shares.map { ("{share=\"\($0.key)\"}", "\($0.value)") })),
      gauge("culvert_relay_gateways", "Gateways that are enrolled.", ["": "\(count("enrolled"))"]),
      gauge(
        "culvert_relay_pairs", "Pairs that are named or have met, by whether packets pass in both directions.",
        ["{state=\"bound\"}": "\(bound)", "{state=\"unbound\"}": "\(relay.pairs.count - bound)"]),
      gauge("culvert_relay_associations", "Associations that are bound.", ["": "\(count("associations"))"]),
      gauge("culvert_relay_waiting_handshakes", "Handshakes that wait.", ["": "\(relay.load.waiting)"]),
      counter(
        "culvert_relay_forwarded_packets", "Sealed packets that were forwarded.", ["": count("forwarded-packets")]),
      counter("culvert_relay_forwarded_bytes", unit: "bytes", "Bytes of them.", ["": count("forwarded-bytes")]),
      counter(
        "culvert_relay_forwarded_handshakes", "Packets of handshakes that were forwarded.",
        ["": count("forwarded-handshakes")]),
      counter("culvert_relay_dropped", "What did not pass, by reason (docs/RELAY.md).", drops),
      counter(
        "culvert_relay_events", "What else the relay has counted.",
        Dictionary(uniqueKeysWithValues: events.map { ("{event=\"\($0)\"}", count($0)) })),
    ]
  }

  private static func gauge(_ name: String, unit: String? = nil, _ help: String, _ values: [String: String]) -> Family {
    Family(
      name: name, type: "gauge", unit: unit, help: help,
      samples: values.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
  }

  private static func counter(_ name: String, unit: String? = nil, _ help: String, _ values: [String: UInt64]) -> Family
  {
    Family(
      name: name, type: "counter", unit: unit, help: help,
      samples: values.sorted { $0.key < $1.key }.map { ($0.key, "\($0.value)") })
  }
}
