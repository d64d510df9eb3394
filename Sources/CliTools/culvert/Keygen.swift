public import ArgumentParser
public import Dataplane
import Gateway
import Identity

struct Keygen: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes a new identity, secret or key to a file that only you can read.",
    discussion: """
      An identity is a gateway's own: its GID, which is printed, is what its partners are to know of it; they may also \
      have the public half, which is written to FILE.pub. A secret is shared by two gateways that have no identities: \
      copy the file to the other one over a safe channel. A key seals one direction of one tunnel with a program that \
      is not Culvert; a tunnel needs two.
      """)

  @Flag(help: "The identity of a gateway: ECDSA over P-256, or what else is said.")
  var identity = false

  @Flag(help: "With --identity: Ed25519.")
  var ed25519 = false

  @Flag(help: "With --identity: RSA of 3072 bits.")
  var rsa = false

  @Option(help: "A key and salt for this cipher: \(Cipher.allCases.map(\.rawValue).joined(separator: ", ")).")
  var cipher: Cipher?

  @Flag(help: "A secret of \(KeyFile.secretLength) bytes for both directions.")
  var secret = false

  @Flag(help: "Replace the file if it exists. What it held is lost.")
  var force = false

  @Argument(help: "The file to write.", completion: .file())
  var output: String

  func validate() throws {
    guard [identity, secret, cipher != nil].count(where: { $0 }) == 1 else {
      throw ValidationError("Say what to make: --identity, --secret or --cipher.")
    }
    guard identity || !(ed25519 || rsa), !(ed25519 && rsa) else {
      throw ValidationError("--ed25519 and --rsa say of which kind an --identity is.")
    }
  }

  func run() async throws {
    try await reportingErrors {
      if identity {
        let made = try IdentityFile.create(ed25519 ? .ed25519 : rsa ? .rsa3072 : .p256, at: output, replace: force)
        print("\(output): identity, \(made.publicIdentity.kind); its public half is in \(output).pub")
        print("GID \(made.tag) (\(made.tag.short))")
        return
      }
      try KeyFile.create(cipher.map { .key($0) } ?? .secret, at: output, replace: force)
      print("\(output): \(cipher.map { "key for one direction, \($0.rawValue)" } ?? "secret for both directions")")
    }
  }
}

extension Cipher: ExpressibleByArgument {}
