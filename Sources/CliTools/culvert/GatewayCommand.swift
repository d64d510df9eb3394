import ArgumentParser
import Gateway
import Logging

struct GatewayCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gateway",
    abstract: "Runs a gateway until SIGTERM or SIGINT.",
    discussion: """
      SIGHUP, or 'culvert reload', reads the file again; a file with errors changes nothing. The log goes to \
      standard error.
      """)

  @Option(name: .shortAndLong, help: "The gateway's configuration file.", completion: .file())
  var config: String

  @Option(
    help: "The least important messages to log: \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).",
    transform: { text in
      guard let level = Logger.Level(rawValue: text) else { throw ValidationError("There is no log level '\(text)'.") }
      return level
    })
  var logLevel: Logger.Level = .info

  func run() async throws {
    try await reportingErrors {
      LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
      var logger = Logger(label: "culvert")
      logger.logLevel = logLevel
      try await GatewayAgent.run(GatewayFile(config), mechanisms: [MLKEM768Mechanism()], logger: logger)
    }
  }
}
