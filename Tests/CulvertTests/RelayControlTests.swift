import Foundation
import Glibc
import Host
import Identity
import PacketIO
import Settings
import Synchronization
import Testing
import Transports

@testable import Relay
@testable import culvert_relay

/// What a control system gives a relay, what is kept of it, and what others read.
@Suite struct RelayControlTests {
  private let directory: String
  private let authority: HairpinPrivateKey
  private let identity = HostIdentity.generate(.p256)
  private let tags = (0..<4).map { _ in HostIdentity.generate(.ed25519).tag }

  init() throws {
    directory = NSTemporaryDirectory() + "culvert-relay-control-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    var random = SystemRandomNumberGenerator()
    authority = try #require(HairpinPrivateKey.generate(using: &random))
    try Base64.encode(authority.publicKey.bytes).write(
      toFile: "\(directory)/control.key.pub", atomically: true, encoding: .utf8)
    try #require(
      FileManager.default.createFile(
        atPath: "\(directory)/relay.key", contents: identity.pem().withBytes { Data($0) },
        attributes: [.posixPermissions: 0o600]))
  }

  private func clean() { try? FileManager.default.removeItem(atPath: directory) }
  private var kept: String { "\(directory)/policy.updates" }
  private func store() throws -> PolicyStore {
    try PolicyStore(kept, PolicyBook(for: identity.tag, keys: [authority.publicKey]))
  }

  private func update(
    _ number: UInt64, since: UInt64? = nil, removed: [(Int, Int)] = [], allowed: [(Int, Int)] = []
  ) throws -> [UInt8] {
    let pair = { (pair: (Int, Int)) in RelayPolicy.Pair(tags[pair.0], tags[pair.1]) }
    let update = PolicyUpdate(
      for: identity.tag, number: number, since.map { .changes(since: $0) } ?? .whole, removed: removed.map(pair),
      allowed: allowed.map { PolicyUpdate.Rule(pair($0)) })
    return try #require(SignedPolicyUpdate(signing: update, with: authority)).bytes
  }

  /// A relay that is started anew has what it had, and goes on from there.
  @Test func updatesAreKept() throws {
    defer { clean() }
    var first = try store()
    #expect(first.book.number == 0)
    try first.take(update(3, allowed: [(0, 1), (2, 3)]))
    try first.take(update(4, since: 3, removed: [(0, 1)]))
    try first.take(update(5, since: 4, allowed: [(0, 2)]))
    #expect(throws: PolicyBook.Refusal.outdated(known: 5)) { try first.take(update(5)) }
    var second = try store()
    #expect(second.book.number == 5 && second.book.policy == first.book.policy)
    #expect(second.book.policy.namedPairs.count == 2)
    let size = try #require(FileManager.default.contents(atPath: kept)).count
    // A whole one makes those before it needless.
    try second.take(update(9, allowed: [(1, 2)]))
    #expect(try #require(FileManager.default.contents(atPath: kept)).count < size)
    #expect(try store().book.number == 9 && store().book.policy.namedPairs.count == 1)
  }

  /// A machine stopped while the last update was written: what is whole counts, wherever it was cut, and what comes next is
  /// put in its place. Anything else that has changed in the file is found.
  @Test func aTornFileIsReadAsFarAsItGoes() throws {
    defer { clean() }
    var first = try store()
    try first.take(update(1, allowed: [(0, 1)]))
    let whole = try #require(FileManager.default.contents(atPath: kept)).count
    try first.take(update(2, since: 1, allowed: [(2, 3)]))
    let all = try #require(FileManager.default.contents(atPath: kept))
    // The number comes after the update.
    try "1\n".write(toFile: "\(kept).number", atomically: true, encoding: .utf8)
    for count in whole..<all.count {
      try all.prefix(count).write(to: URL(filePath: kept))
      #expect(try store().book.number == 1, "cut at \(count)")
    }
    var torn = try store()
    try torn.take(update(7, since: 1, allowed: [(0, 3)]))
    #expect(try store().book.number == 7 && store().book.policy.namedPairs.count == 2)
    for place in [5, 40, whole - 1, whole + 30, all.count - 1] {
      var altered = all
      altered[place] ^= 1
      try altered.write(to: URL(filePath: kept))
      let error = #expect(throws: OperatorError.self, "byte \(place)") { try store() }
      #expect(error?.remedy.contains("remove the file") == true)
    }
  }

  /// An older copy of the file is not believed, and who removes it begins with a whole policy, of a higher number.
  @Test func anOlderCopyIsRefused() throws {
    defer { clean() }
    var first = try store()
    try first.take(update(1, allowed: [(0, 1), (2, 3)]))
    let older = try #require(FileManager.default.contents(atPath: kept))
    try first.take(update(2, since: 1, removed: [(0, 1)]))
    #expect(try store().book.number == 2)
    try older.write(to: URL(filePath: kept))
    let error = #expect(throws: OperatorError.self) { try store() }
    #expect(error?.problem == "\(kept) is an older copy: it ends with number 1, and 2 was in force")
    try FileManager.default.removeItem(atPath: kept)
    var anew = try store()
    #expect(anew.book.policy == RelayPolicy())
    #expect(throws: PolicyBook.Refusal.outdated(known: 2)) { try anew.take(update(1, allowed: [(0, 1)])) }
    try anew.take(update(3, allowed: [(2, 3)]))
    #expect(try store().book.number == 3)
    for text in ["", "3", "x\n", "-1\n"] {
      try text.write(toFile: "\(kept).number", atomically: true, encoding: .utf8)
      #expect(throws: OperatorError.self, "\(text)") { try store() }
    }
  }

  /// The number of a whole update cannot be written: what changes another one is refused until a whole one comes.
  @Test func aNumberThatCannotBeWrittenSpoilsNothing() throws {
    defer { clean() }
    var first = try store()
    try first.take(update(1, allowed: [(0, 1), (2, 3)]))
    let number = "\(kept).number"
    try FileManager.default.removeItem(atPath: number)
    try FileManager.default.createDirectory(atPath: number, withIntermediateDirectories: true)
    #expect(throws: OperatorError.self) { try first.take(update(2, allowed: [(0, 1)])) }
    try FileManager.default.removeItem(atPath: number)
    #expect(throws: PolicyBook.Refusal.gap(known: 1)) { try first.take(update(3, since: 1, allowed: [(1, 2)])) }
    try first.take(update(4, allowed: [(1, 2)]))
    try first.take(update(5, since: 4, allowed: [(0, 3)]))
    let again = try self.store()
    #expect(again.book.number == 5 && again.book.policy == first.book.policy)
  }

  private func read(_ text: String, rehearses: Bool = false) throws -> RelayFile {
    try text.write(toFile: "\(directory)/relay.yaml", atomically: true, encoding: .utf8)
    return try RelayFile(contentsOf: "\(directory)/relay.yaml", rehearses: rehearses)
  }

  /// What `--check` finds besides: what the start would fail at. It leaves nothing behind.
  @Test func aCheckTriesWhatTheStartOpens() throws {
    defer { clean() }
    let settings = "identity: relay.key\npairs: []\n"
    try "no ticket\nand no other\n".write(toFile: "\(directory)/used", atomically: true, encoding: .utf8)
    let long = String(repeating: "x", count: 100)
    let before = try FileManager.default.contentsOfDirectory(atPath: directory).count
    let good = "used-tickets: new\nrecords: new.jsonl\ncontrol: relay.sock\nmetrics: 127.0.0.1\n"
    _ = try read(settings + good, rehearses: true)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory).count == before + 1)
    let cases = [
      ("used-tickets: used", "used-tickets: DIR/used:1 is no used ticket"),
      ("used-tickets: none/used", "used-tickets: DIR/none/used cannot be created: No such file or directory"),
      ("records: none/a", "records: DIR/none/a cannot be created: No such file or directory"),
      ("records: .", "records: DIR/. cannot be written: Is a directory"),
      ("control: used", "control: DIR/used is there, and no socket"),
      (
        "control: /\(long)/\(long)",
        "control: a socket's name has 107 bytes at most, and /\(long)/\(long) 202"
      ),
      (
        "metrics: 192.0.2.77:9464",
        "metrics: nothing can listen on 192.0.2.77: Cannot assign requested address"
      ),
      ("metrics: 127.0.0.1:4501", "metrics: 127.0.0.1:4501 is where gateways come"),
    ]
    for (setting, problem) in cases {
      let error = #expect(throws: FileProblems.self) { try read(settings + setting, rehearses: true) }
      let found = error?.problems.first { $0.problem.replacing(directory, with: "DIR") == problem }
      #expect(found?.line == 3 && found?.remedy.isEmpty == false, "\(error.map { "\($0)" } ?? "")")
    }
  }

  /// The file, and what `--check` finds of it.
  @Test func theFileNamesAControlSystem() throws {
    defer { clean() }
    let settings = "identity: relay.key\npolicy-key: control.key.pub\npolicy-updates: policy.updates\n"
    let empty = try read(settings + "metrics: 127.0.0.1\n")
    #expect(empty.options.relay?.policy == RelayPolicy() && empty.policyStore?.book.number == 0)
    #expect(empty.metrics == Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 9464))
    var store = try store()
    try store.take(update(3, allowed: [(0, 1)]))
    #expect(try read(settings).options.relay?.policy.namedPairs == [RelayPolicy.Pair(tags[0], tags[1])])
    var random = SystemRandomNumberGenerator()
    let other = try #require(HairpinPrivateKey.generate(using: &random)).publicKey
    try Base64.encode(other.bytes).write(toFile: "\(directory)/other.pub", atomically: true, encoding: .utf8)
    let cases = [
      (
        settings.replacing("control.key.pub", with: "other.pub"), 3,
        "policy-updates: DIR/policy.updates holds what is no update of this relay's policy: its signature is not that of a "
          + "control system that is known here"
      ),
      (settings + "pairs: []\n", 4, "pairs: stands beside 'policy-key'"),
      ("identity: relay.key\npolicy-key: control.key.pub\n", 1, "policy-updates is missing"),
      ("identity: relay.key\npolicy-updates: a\npairs: []\n", 1, "policy-key is missing"),
      ("identity: relay.key\npolicy-key: none\npolicy-updates: a\n", 2, "policy-key: DIR/none cannot be read"),
      ("identity: relay.key\ngroups: {a: []}\npairs: []\n", 2, "groups: 'a' has no members"),
      ("identity: relay.key\npairs: []\nmetrics: 1\n", 3, "metrics: '1' is not an address with a port"),
    ]
    for (text, line, problem) in cases {
      let error = #expect(throws: FileProblems.self) { try read(text) }
      let found = error?.problems.first { $0.problem.replacing(directory, with: "DIR") == problem }
      #expect(found?.line == line && found?.remedy.isEmpty == false, "\(error.map { "\($0)" } ?? "")")
    }
  }

  /// Over the control socket: a line for a line, and what is no question gets no answer.
  @Test func theSocketAnswers() async throws {
    defer { clean() }
    let path = "\(directory)/relay.sock"
    let control = try RelayControl(path: path) { request in
      switch request {
      case .show: Array("{\"shown\":1}".utf8)
      case .shares: Array("{\"shares\":[]}".utf8)
      case .update(let bytes): Array("\(bytes.count)".utf8)
      }
    }
    defer { control.stop() }
    let answers = try await Self.blocking {
      let shown = try RelayControl.ask(.show, at: path)
      let shares = try RelayControl.ask(.shares, at: path)
      let taken = try RelayControl.ask(.update([UInt8](repeating: 7, count: 100_000)), at: path)
      let socket = try UnixSocket.connect(path, seconds: 60)
      try UnixSocket.writeLine(socket.raw, Array("what".utf8))
      return (shown, shares, taken, try UnixSocket.readLine(socket.raw, limit: 100))
    }
    #expect(answers.0 == Array("{\"shown\":1}".utf8) && answers.1 == Array("{\"shares\":[]}".utf8))
    #expect(answers.2 == Array("100000".utf8) && answers.3 == nil)
  }

  /// `show --shares`, for people.
  @Test func sharesTextShowsWhoHoldsWhat() throws {
    let json = """
      {"shares":[{"resource":"streams","capacity":9,"used":3,"refused":4,"holders":[
      {"holder":"ticket 77 of berlin","held":2,"refused":0},{"holder":"192.0.2.1","held":1,"refused":4}]},
      {"resource":"relay-pairs","capacity":8,"used":0,"refused":0,"holders":[]}]}
      """
    let report = try JSONDecoder().decode(RelayShares.self, from: Data(json.utf8))
    #expect(
      Show.lines(report) == [
        "streams  3 of 9 held, 4 refused", "  ticket 77 of berlin  2 held, 0 refused", "  192.0.2.1  1 held, 4 refused",
        "relay-pairs  0 of 8 held, 0 refused",
      ])
  }

  /// Waits on a thread of its own, because what answers needs those of the tests.
  private static func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      Thread { continuation.resume(with: Result { try body() }) }.start()
    }
  }

  // MARK: Metrics

  private static func report() -> RelayReport {
    let pair = { (isBound: Bool) in
      RelayReport.Pair(
        gateways: ["a", "b"], isBound: isBound, reason: isBound ? nil : "why", packets: [1, 2], bytes: [3, 4],
        dropped: [0, 0])
    }
    return RelayReport(
      gid: "relay", load: .init(share: 0.5, thread: 0.25, bandwidth: 0.5, pairs: 0, waiting: 3),
      counters: ["enrolled": 2, "forwarded-packets": 7, "dropped-not-allowed": 9, "enrolments": 4], gateways: [],
      pairs: [pair(true), pair(false), pair(false)])
  }

  /// What OpenMetrics 1.0 asks for: each family once, with its type, counters that end in _total, units in names, and an end.
  @Test func metricsAreWellFormed() throws {
    let text = RelayMetrics.text(HairpinStatistics(), Self.report())
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    #expect(lines.suffix(2) == ["# EOF", ""])
    var types: [String: String] = [:]
    var current = ""
    var seen: Set<String> = []
    for line in lines.dropLast(2) {
      if line.hasPrefix("# TYPE ") {
        let words = line.split(separator: " ").map(String.init)
        try #require(words.count == 4)
        #expect(types.updateValue(words[3], forKey: words[2]) == nil, "\(line) twice")
        current = words[2]
      } else if line.hasPrefix("# UNIT ") {
        #expect(current.hasSuffix("_" + (line.split(separator: " ").last ?? "")), "\(line)")
      } else if line.hasPrefix("# HELP ") {
        #expect(line.hasPrefix("# HELP \(current) "))
      } else {
        let sample = line.split(separator: " ")
        try #require(sample.count == 2 && Double(sample[1]) != nil, "\(line)")
        #expect(seen.insert(String(sample[0])).inserted, "\(line) twice")
        let name = current + (types[current] == "counter" ? "_total" : "")
        #expect(sample[0] == name || sample[0].hasPrefix(name + "{") && sample[0].hasSuffix("\"}"), "\(line)")
      }
    }
    for line in [
      "culvert_relay_pairs{state=\"bound\"} 1", "culvert_relay_pairs{state=\"unbound\"} 2",
      "culvert_relay_load_ratio{share=\"thread\"} 0.25", "culvert_relay_dropped_total{reason=\"not-allowed\"} 9",
      "culvert_relay_forwarded_packets_total 7", "culvert_relay_waiting_handshakes 3",
    ] { #expect(lines.contains(line), "\(line)") }
    // Every reason, also those that have not occurred.
    #expect(lines.count { $0.hasPrefix("culvert_relay_dropped_total{") } == RelayDrop.allCases.count)
    #expect(!RelayMetrics.text(HairpinStatistics(), nil).contains("culvert_relay_"))
  }

  /// Over HTTP, and nothing else than /metrics; who says nothing holds up nobody for long.
  @Test func metricsAreServed() async throws {
    let metrics = try RelayMetrics(Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 0))
    metrics.start { "text\n# EOF\n" }
    defer { metrics.stop() }
    let answer = try await ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", at: metrics.port)
    #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0;"))
    #expect(answer.hasSuffix("\r\n\r\ntext\n# EOF\n") && answer.contains("\r\nContent-Length: 11\r\n"))
    #expect(try await ask("GET /metrics?x=1 HTTP/1.1\r\n\r\n", at: metrics.port).hasPrefix("HTTP/1.1 200 OK\r\n"))
    for head in ["GET / HTTP/1.1", "POST /metrics HTTP/1.1", "GET /metrics", ""] {
      #expect(try await ask(head + "\r\n\r\n", at: metrics.port).hasPrefix("HTTP/1.1 404 Not Found\r\n"))
    }
    #expect(try await ask(String(repeating: "x", count: 20_000), at: metrics.port).isEmpty)
  }

  /// To collect figures takes the packet thread's time: however many ask, it is asked once in a while, and somebody who
  /// never ends his request keeps nobody out.
  @Test func askingOftenAsksTheRelaySeldom() async throws {
    let metrics = try RelayMetrics(Endpoint(address: IPAddress(v4: 0x7F00_0001), port: 0), freshness: .seconds(3600))
    let made = Mutex(0)
    metrics.start {
      made.withLock { made in
        made += 1
        return "\(made)\n"
      }
    }
    defer { metrics.stop() }
    let slow = try Self.connected(to: metrics.port)
    defer { close(slow) }
    try UnixSocket.write(slow, [UInt8(ascii: "G")])
    for _ in 0..<5 {
      #expect(try await ask("GET /metrics HTTP/1.1\r\n\r\n", at: metrics.port).hasSuffix("\r\n\r\n1\n"))
    }
  }

  private func ask(_ request: String, at port: UInt16) async throws -> String {
    try await Self.blocking { try Self.ask(request, at: port) }
  }

  private static func connected(to port: UInt16) throws -> Int32 {
    let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    UnixSocket.setTimeLimit(socket, seconds: 60)
    let name = SocketName(Endpoint(address: IPAddress(v4: 0x7F00_0001), port: port))
    try #require(name.withPointer { connect(socket, $0, $1) } == 0)
    return socket
  }

  private static func ask(_ request: String, at port: UInt16) throws -> String {
    let socket = try connected(to: port)
    defer { close(socket) }
    try UnixSocket.write(socket, Array(request.utf8))
    var answer: [UInt8] = []
    // An end that the other side makes hard is one, too.
    while let more = try? UnixSocket.read(socket, limit: 4096) { answer += more }
    return String(decoding: answer, as: UTF8.self)
  }
}
