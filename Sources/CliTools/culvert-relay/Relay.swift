import ArgumentParser
import Foundation
import Host
import PacketIO
import Relay
import Settings
import Transports

/// `culvert-relay`: a hairpin proxy alone, without anything that could open a packet.
@main struct Relay: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-relay",
    abstract: "A hairpin proxy: forwards sealed packets between two gateways that hold a ticket.",
    discussion: """
      Gateways present tickets that a control system signed (see 'culvert ticket'); the relay needs its public key \
      and nothing else. It ends tidily on SIGTERM and SIGINT, and logs its figures on SIGUSR1. The file, which is read \
      at the start alone:

        listen: ["0.0.0.0:4501", "[::]:4501"]   # where tickets are presented; ports are allocated beside
        public-key: control.key.pub             # written by 'culvert ticket keygen'; a list for several
        name: relay-1                           # then only tickets that name it are taken; optional
        ports: 20000-59999                      # that may be allocated
        hairpins: 1024                          # at a time
        bandwidth: 1G                           # bits a second in all; priorities decide above it; optional
        silence: 120                            # seconds without a word after which a side is gone
        records: hairpins.jsonl                 # a line for each that ended; '-': standard output
        used-tickets: used-tickets              # what must survive a restart; optional
      """)

  @Option(help: "The relay's file.", completion: .file())
  var config: String

  @Flag(help: "Read the file, say what is wrong with it, and end.")
  var check = false

  func run() async throws {
    do {
      let file = try RelayFile(contentsOf: config)
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
      options.onUse = { uses.write($0.line, isDurable: true) }
    }
    let refusals = RefusalLog()
    options.onRefusal = { refusals.note($0) }
    options.onRecord = { records?.write($0.line) }
    let openFiles = OpenFiles.raiseLimit()
    try Privileges.begin(keeping: [.lowPorts, .lockedMemory, .limits])
    let proxy = try HairpinProxy(options)
    // Ports of hairpins are opened later.
    try Privileges.settle(keeping: options.ports.lowerBound < 1024 ? .lowPorts : [], startsPrograms: false)
    if let shortage = options.shortage(openFiles: openFiles) { say(shortage) }
    say("relay runs on \(options.listen.map(\.description).joined(separator: ", "))")
    let log = Task { await refusals.write { say($0) } }
    let clock = Task {
      for second in 1... {
        refusals.flush()
        if second % 60 == 0 { refusals.summarise() }
        try await Task.sleep(for: .seconds(1))
      }
    }
    await heed(watch.signals, proxy)
    await proxy.stop()
    log.cancel()
    clock.cancel()
    let figures = proxy.statistics
    say("relay ended; \(figures[.forwardedPackets]) packets and \(figures[.forwardedBytes]) bytes were forwarded")
  }

  /// Returns with a signal to end.
  private func heed(_ signals: AsyncStream<Int32>, _ proxy: HairpinProxy) async {
    for await number in signals {
      switch number {
      case SIGUSR1: say(proxy.statistics.line)
      case SIGHUP: say("the file is read at the start alone: start it anew, and open hairpins come back by themselves")
      default: return
      }
    }
  }

  private func say(_ line: String) { FileHandle.standardError.write(Data("culvert-relay: \(line)\n".utf8)) }

  private static func complain(_ error: any Error) {
    // Problems of a file begin with its name, as compilers write them.
    let isAboutFile = error is FileProblem || error is FileProblems
    FileHandle.standardError.write(Data(((isAboutFile ? "" : "culvert-relay: ") + "\(error)\n").utf8))
  }
}
