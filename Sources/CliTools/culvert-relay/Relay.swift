import ArgumentParser
import Foundation
import Glibc
import Host
import PacketIO
import Relay
import Settings
import Transports

/// `culvert-relay`: a relay alone, without anything that could open a packet.
@main struct Relay: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-relay",
    abstract: "A relay: forwards sealed packets between gateways that hold a ticket, or are known to it by name.",
    version: Version.text,
    subcommands: [Serve.self, Show.self, Update.self], defaultSubcommand: Serve.self)

  static func main() async {
    // Whoever asks a relay to read its file again before it has read it asks for nothing, and shall not end it.
    if CommandLine.arguments.contains(where: { $0.hasPrefix("--config") }) { signal(SIGHUP, SIG_IGN) }
    await main(nil)
  }

  static func complain(_ error: any Error) {
    // Problems of a file begin with its name, as compilers write them.
    let isAboutFile = error is FileProblem || error is FileProblems
    FileHandle.standardError.write(Data(((isAboutFile ? "" : "culvert-relay: ") + "\(error)\n").utf8))
  }
}

/// `culvert-relay --config FILE`: the relay itself.
struct Serve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve", abstract: "Run the relay (also without this word).",
    discussion: """
      As a hairpin proxy it gives two gateways that hold a ticket a port each: they present tickets that a control \
      system signed (see 'culvert ticket'), and the relay needs its public key. As an identity relay it has an identity, \
      and a policy of which gateways may meet; all of them share its port (docs/RELAY.md). It ends tidily on SIGTERM and \
      SIGINT, reads its policy and its certificate anew on SIGHUP, and logs its figures on SIGUSR1. The file, of which all \
      else is read at the start alone:

        listen: ["0.0.0.0:4501", "[::]:4501"]   # where tickets are presented; ports are allocated beside
        listen-tls: 443                         # the same inside TLS 1.3: a port or addresses; optional
        tls: {certificate: chain.pem, key: key.pem, web-server: /run/web.sock}   # as a gateway's; optional
        public-key: control.key.pub             # hairpins: written by 'culvert ticket keygen'; a list for several
        name: relay-1                           # then only tickets that name it are taken; optional
        ports: 20000-59999                      # that may be allocated
        hairpins: 1024                          # at a time
        tickets: 65536                          # remembered as used, those of open hairpins included
        bandwidth: 1G                           # bits a second in all; priorities decide above it; optional
        silence: 120                            # seconds without a word after which a side is gone
        records: hairpins.jsonl                 # a line for each that ended; '-': standard output
        used-tickets: used-tickets              # what must survive a restart; optional
        identity: relay.key                     # identity relay: 'culvert keygen --identity relay.key'
        groups: {offices: ["2001:22:…", "2001:22:…"], plants: ["2001:22:…"]}
        pairs:                                  # who may meet whom; or policy: FILE, with groups, pairs and deny
          - {groups: [offices, plants], priority: 5}
          - {between: ["2001:22:…", "2001:22:…"], bandwidth: 100M, windows: [08:00-18:00]}
        deny: ["2001:22:…", {between: ["2001:22:…", "2001:22:…"]}]   # whatever a ticket says; optional
        policy-key: control.key.pub             # or a control system says it, by 'culvert-relay update'
        policy-updates: policy.updates          # where its updates are kept
        gateways: 4096                          # enrolled at a time
        relay-pairs: 16384                      # bound at a time
        control: /run/culvert/relay.sock        # where 'culvert-relay show' asks; optional
        metrics: 127.0.0.1:9464                 # GET /metrics has figures for a monitoring system; optional
      """)

  @Option(help: "The relay's file.", completion: .file())
  var config: String

  @Flag(help: "Read the file, say what is wrong with it, and end.")
  var check = false

  func run() async throws {
    do {
      let file = try RelayFile(contentsOf: config, rehearses: check)
      if check { return print("\(config): good") }
      try await serve(file)
    } catch {
      Relay.complain(error)
      throw ExitCode.failure
    }
  }

  private func serve(_ file: RelayFile) async throws {
    // Before anything is opened, so that no signal finds the old way.
    let watch = SignalWatch([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
    signal(SIGPIPE, SIG_IGN)
    let records = try file.records.map { try LineFile(path: $0, complain: Relay.complain) }
    var options = file.options
    if let path = file.usedTickets {
      options.uses = try UsedTickets.read(path, now: UInt64(time(nil)))
      let uses = try LineFile(path: path, complain: Relay.complain)
      options.reports.onUse = { uses.write($0.line, isDurable: true) }
    }
    let refusals = RefusalLog()
    options.reports.onRefusal = { refusals.note($0) }
    options.reports.onRecord = { records?.write($0.line) }
    let openFiles = OpenFiles.raiseLimit()
    let metrics = try file.metrics.map { try RelayMetrics($0) }
    try Privileges.begin(keeping: [.lowPorts, .lockedMemory, .limits])
    let proxy = try HairpinProxy(options)
    // Ports of hairpins are opened later.
    try Privileges.settle(keeping: options.ports.lowerBound < 1024 ? .lowPorts : [], startsPrograms: false)
    if let shortage = options.shortage(openFiles: openFiles) { say(shortage) }
    let tls =
      options.tls.listen.isEmpty ? "" : ", TLS on \(options.tls.listen.map(\.description).joined(separator: ", "))"
    say("relay runs on \(options.listen.map(\.description).joined(separator: ", "))\(tls)")
    let log = Task { await refusals.write { say($0) } }
    metrics?.start { RelayMetrics.text(proxy.statistics, Serve.report(of: proxy)) }
    let desk = PolicyDesk(file.policyStore, proxy)
    let control = try file.control.map { path in
      try RelayControl(path: path) { request in
        switch request {
        case .show: Serve.encoded(Serve.report(of: proxy))
        case .shares: Serve.encoded(RelayControl.wait { proxy.shares($0) } ?? nil)
        case .update(let bytes): desk.take(bytes)
        }
      }
    }
    if file.policyStore != nil, file.control == nil {
      say("no policy update can come: give the file a 'control'")
    }
    let service = ServiceManager.own
    service.tell(.ready)
    let watchdog = service.watchdogInterval.map { interval in
      Task {
        while !Task.isCancelled {
          await proxy.turn()
          service.tell(.alive)
          try? await Task.sleep(for: .seconds(interval))
        }
      }
    }
    let clock = Task {
      for second in 1... {
        refusals.flush()
        if second % 60 == 0 { refusals.summarise() }
        try await Task.sleep(for: .seconds(1))
      }
    }
    await heed(watch.signals, proxy, desk)
    service.tell(.stopping)
    watchdog?.cancel()
    control?.stop()
    metrics?.stop()
    await proxy.stop()
    log.cancel()
    clock.cancel()
    let figures = proxy.statistics
    say("relay ended; \(figures[.forwardedPackets]) packets and \(figures[.forwardedBytes]) bytes were forwarded")
  }

  /// What `culvert-relay show` gets: a line of JSON.
  private static func encoded(_ answer: (some Encodable)?) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return answer.flatMap { try? encoder.encode($0) }.map { Array($0) } ?? Array("{}".utf8)
  }

  private static func report(of proxy: HairpinProxy) -> RelayReport? {
    (RelayControl.wait { proxy.relaySnapshot($0) } ?? nil)?.report
  }

  /// Returns with a signal to end.
  private func heed(_ signals: AsyncStream<Int32>, _ proxy: HairpinProxy, _ desk: PolicyDesk) async {
    for await number in signals {
      switch number {
      case SIGUSR1:
        say(proxy.statistics.line)
        if let relay = proxy.relayStatistics { say(relay.line) }
      case SIGHUP:
        ServiceManager.own.tell(.reloading)
        defer { ServiceManager.own.tell(.ready) }
        if desk.isOpen { say(desk.state) }
        reload(proxy, isPolicyUpdated: desk.isOpen)
      default: return
      }
    }
  }

  /// Puts the policy in force that the file has now, or names, and shows the certificate that is there now.
  /// - Parameter isPolicyUpdated: by a control system: then the file has no say in it.
  private func reload(_ proxy: HairpinProxy, isPolicyUpdated: Bool) {
    do {
      let file = try RelayFile(contentsOf: config)
      let options = file.options
      if let certificate = options.tls.certificate {
        try proxy.update(certificate: certificate)
        say("the certificate is in force, for streams that begin from now on")
      }
      if isPolicyUpdated { return }
      guard file.policyStore == nil else {
        return say("the policy of before stays in force: start the relay anew, so that a control system can update it")
      }
      guard let relay = options.relay else {
        return say(
          "only a policy and a certificate are read again: start it anew, and open hairpins come back by themselves")
      }
      proxy.update(relay.policy)
      say("the policy is in force; all else is read at the start alone")
    } catch {
      Relay.complain(error)
      say("the policy of before stays in force")
    }
  }

  private func say(_ line: String) { FileHandle.standardError.write(Data("culvert-relay: \(line)\n".utf8)) }
}
