import ArgumentParser
import Foundation
import Gateway
import Host
import Settings

@main
struct Culvert: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert",
    abstract: "A VPN gateway in user space: ESP tunnels over UDP.",
    discussion: """
      A new tunnel takes an identity and a file at each end:

        culvert keygen --identity oslo.key    prints the GID, which the other end is to know: 'gid: "2001:22:…"'
        culvert identity oslo.key             prints it again
        culvert check oslo.yaml
        culvert gateway --config oslo.yaml
        culvert show

      Two gateways without identities can share a secret: 'culvert keygen --secret FILE', copied to the other end,
      safely.
      """,
    version: Version.text,
    subcommands: [
      Keygen.self, IdentityCommand.self, Check.self, GatewayCommand.self, Show.self, Map.self, Explain.self,
      Capture.self, Reload.self,
      TicketCommand.self,
      PolicyCommand.self,
    ])

  static func main() async {
    // Whoever asks a gateway to read its file again before it has read it asks for nothing, and shall not end it.
    if CommandLine.arguments.dropFirst().first == "gateway" { signal(SIGHUP, SIG_IGN) }
    await main(nil)
  }
}

/// Does a command's work. What it throws becomes lines on standard error, and exit status 1.
func reportingErrors(_ work: () async throws -> Void) async throws {
  do {
    try await work()
  } catch let exit as ExitCode {
    throw exit
  } catch {
    complain(error)
    throw ExitCode.failure
  }
}

/// Problems of a file begin with its name, as compilers write them; all else begins with the program's.
func complain(_ error: any Error) {
  let isAboutFile = error is FileProblem || error is FileProblems
  FileHandle.standardError.write(Data(((isAboutFile ? "" : "culvert: ") + "\(error)\n").utf8))
}
