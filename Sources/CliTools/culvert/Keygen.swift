public import ArgumentParser
public import Dataplane
import Gateway

struct Keygen: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes a new random key or secret to a file that only you can read.",
    discussion: """
      Either a secret, which two gateways share and derive everything else from, or a key for one direction of one \
      tunnel, of which a tunnel needs two. Copy the file to the other gateway over a safe channel.
      """)

  @Option(help: "A key and salt for this cipher: \(Cipher.allCases.map(\.rawValue).joined(separator: ", ")).")
  var cipher: Cipher?

  @Flag(help: "A secret of \(KeyFile.secretLength) bytes for both directions.")
  var secret = false

  @Flag(help: "Replace the file if it exists. What it held is lost.")
  var force = false

  @Argument(help: "The file to write.", completion: .file())
  var output: String

  func validate() throws {
    guard secret != (cipher != nil) else {
      throw ValidationError("Say what to make: either --secret or --cipher.")
    }
  }

  func run() async throws {
    try await reportingErrors {
      try KeyFile.create(cipher.map { .key($0) } ?? .secret, at: output, replace: force)
      print("\(output): \(cipher.map { "key for one direction, \($0.rawValue)" } ?? "secret for both directions")")
    }
  }
}

extension Cipher: ExpressibleByArgument {}
