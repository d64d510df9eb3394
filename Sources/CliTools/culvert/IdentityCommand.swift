import ArgumentParser
import Gateway

struct IdentityCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "identity",
    abstract: "Prints the GIDs of identities that are there: private ones, or their public halves.",
    discussion: """
        culvert identity oslo.key bergen.key.pub

      What it prints is no secret. Write the GID, not the short form beside it, into the files of the other gateways.
      """)

  @Argument(help: "Files that 'culvert keygen --identity' wrote.", completion: .file())
  var files: [String]

  func run() async throws {
    try await reportingErrors {
      for file in files {
        let (identity, isPrivate) = try IdentityFile.readEither(file)
        print("\(file): \(isPrivate ? "identity" : "public half of an identity"), \(identity.kind)")
        print("GID \(identity.tag) (\(identity.tag.short))")
      }
    }
  }
}
