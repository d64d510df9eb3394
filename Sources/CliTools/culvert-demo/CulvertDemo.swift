public import ArgumentParser
public import Dataplane
import Gateway
import Host
import Lab

/// `culvert-demo`: two sites with a gateway each, in network namespaces of this machine, and traffic between them.
@main struct CulvertDemo: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-demo",
    abstract: "Builds two sites on this machine, connects them, and shows traffic going through.",
    discussion: """
      All of it happens inside network namespaces that are made for this and removed again, also after Ctrl-C. \
      Needs root, the programs of the package iproute2, and the program culvert beside this one.
      """, version: Version.text)

  @Option(help: "MiB to transfer in each direction, 1 to 1048576.")
  var size = 1024

  @Option(help: "Cipher of the tunnel: \(Cipher.allCases.map(\.rawValue).joined(separator: ", ")).")
  var cipher = Cipher.aes128GCM

  @Flag(help: "Leave the sites standing at the end, to look around in, until Ctrl-C.")
  var hold = false

  func validate() throws {
    guard (1...1_048_576).contains(size) else { throw ValidationError("--size is from 1 to 1048576 MiB") }
  }

  func run() async throws {
    do {
      if let obstacle = Namespace.obstacle { throw LabError("\(obstacle)") }
      try Cleanup.onSignals()
      Cleanup.reclaimAbandoned()
      do {
        try show()
      } catch {
        // Ctrl-C takes away what we stand on; whatever fails then is no news. The signal's thread ends us.
        if Cleanup.hasBegun { pause(seconds: 60) }
        Cleanup.runAll()
        throw error
      }
    } catch {
      TextOutput.standardError.write("culvert-demo: \(error)\n")
      throw ExitCode.failure
    }
  }

  private func show() throws {
    let screen = DemoScreen()
    screen.title("Two sites, two gateways, one tunnel: all inside this machine's network namespaces")
    let sites = try DemoSites(cipher: cipher)
    defer { sites.remove() }
    screen.say(DemoSites.diagram)

    screen.step("Building four namespaces and three wires")
    screen.done("\(sites.network.topology.nodes.joined(separator: ", "))")
    screen.step("Making two identities and starting the gateways, which agree upon keys")
    try sites.start()
    let report = try sites.report(0)
    let keys = report.peers.first?.keys
    screen.done(
      "alpha and beta run, \(cipher.rawValue) sealed by \(report.statistics.engine), keys by \(keys?.group ?? "none")")
    screen.say("   alpha is \(report.identity ?? "nobody"), and knows beta as \(keys?.gid ?? "nobody")")

    var results = DemoResults(cipher: cipher.rawValue)
    try ping(sites, screen, &results)
    try transfer(sites, screen, &results)
    // A packet or a probe may be under way, counted at its beginning only.
    for _ in 0..<20 {
      results.gateways = [try sites.report(0), try sites.report(1)]
      if results.areCountersBalanced { break }
      pause(seconds: 0.05)
    }

    if hold {
      screen.say("\n" + results.text)
      screen.say(sites.invitation)
      while true { pause(seconds: 3600) }
    }
    screen.step("Stopping the gateways, removing the sites")
    try sites.stop()
    sites.remove()
    screen.done("nothing is left behind")
    screen.say("\n" + results.text)
    if let failure = results.failure { throw LabError("the demonstration failed: \(failure)") }
  }

  /// Pings both ways, in both address families, while somebody listens on the wire and on a LAN.
  private func ping(_ sites: DemoSites, _ screen: DemoScreen, _ results: inout DemoResults) throws {
    let secret = "nobody on the wire shall read this"
    let wire = try WireTap(sites.network["gateway-a"], interface: "wire", lookingFor: secret)
    let lan = try WireTap(sites.network["host-a"], interface: "lan", lookingFor: secret)
    for trip in DemoSites.trips + DemoSites.tripsV6 {
      screen.step("Ping \(trip.from) → \(trip.address)")
      var echo = Echo(from: sites.network[trip.from], to: sites.network[trip.to], address: trip.address)
      echo.count = 20
      echo.interval = 0.02
      echo.text = secret
      let result = try echo.run()
      let times = Samples(result.times.map { $0 * 1e6 })
      results.pings.append(.init(trip: trip, sent: result.sent, times: times))
      screen.done("\(result.times.count) of \(result.sent) answered, median \(Int(times.median)) µs")
    }
    results.wire = try wire.finish()
    results.lan = try lan.finish()
  }

  private func transfer(_ sites: DemoSites, _ screen: DemoScreen, _ results: inout DemoResults) throws {
    let total = UInt64(size) << 20
    for trip in DemoSites.trips {
      screen.step("Transfer \(size) MiB \(trip.from) → \(trip.to)")
      var bulk = BulkTransfer(
        from: sites.network[trip.from], to: sites.network[trip.to], address: trip.address, amount: .bytes(total))
      bulk.verifies = true
      bulk.seed = UInt64(results.transfers.count) + 1
      bulk.reportInterval = 0.1
      let result = try bulk.run(progress: { now in
        screen.progress(Double(now.bytes) / Double(total), "\(DemoScreen.fixed(now.rate / 1e9, 2)) Gbit/s")
      })
      results.transfers.append(.init(trip: trip, result: result))
      let rate = DemoScreen.fixed(result.bitsPerSecond / 1e9, 2)
      screen.done("\(rate) Gbit/s, digests \(result.isIntact ? "agree" : "DIFFER")")
    }
  }
}

extension Cipher: ExpressibleByArgument {}
