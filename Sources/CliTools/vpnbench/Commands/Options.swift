import ArgumentParser

/// Options of scenarios in which devices carry packets between namespaces.
struct DeviceOptions: ParsableArguments {
  @Option(help: "IP version inside the tunnels, 4 or 6; between their ends it is always 4.")
  var ip = Family.four

  @Option(help: "Bytes of the largest packet inside all tunnels.")
  var mtu = 1400

  @Flag(help: "Afterwards, show in which functions Culvert spends its time; needs perf.")
  var profile = false

  func validate() throws {
    guard (1280...9000).contains(mtu) else { throw ValidationError("--mtu is from 1280 to 9000") }
  }

  /// What a scenario that has defaults of its own for these takes.
  /// - Throws: `ValidationError`.
  static func check(seconds: Double, pings: Int) throws {
    guard (0.2...600).contains(seconds) else { throw ValidationError("--seconds is from 0.2 to 600") }
    guard (20...100_000).contains(pings) else { throw ValidationError("--pings is from 20 to 100000") }
  }
}

/// Options that all scenarios share.
struct OutputOptions: ParsableArguments {
  @Option(name: .long, help: "Also write the results, all single values included, to this file.")
  var json: String?

  @Option(name: .long, help: "Also draw the results into this file, as SVG.")
  var chart: String?

  @Option(name: .long, help: "Rounds; every round measures every subject once.")
  var rounds = 5

  func validate() throws {
    guard (1...1000).contains(rounds) else { throw ValidationError("--rounds is from 1 to 1000") }
  }

  /// Prints the tables and, where asked, writes the file.
  func deliver(_ report: Report) throws {
    print(report.tables())
    if let json { try report.write(to: json) }
    if let chart { try Chart(report).write(to: chart) }
  }
}
