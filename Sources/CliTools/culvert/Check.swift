import ArgumentParser
import Gateway

struct Check: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Reads a gateway's file and its keys, and says what is wrong with them.")

  @Argument(help: "The gateway's configuration file; '-': standard input.", completion: .file())
  var file: String

  func run() async throws {
    try await reportingErrors {
      let plan = try GatewayFile(file).plan()
      if plan.hasManualKeys { try StateDirectory.check(plan.state) }
      print(plan.summary(of: file))
    }
  }
}
