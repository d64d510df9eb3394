public import Host
public import Transports

/// Files of the control system that issues hairpin tickets, and of the gateways that get them.
public enum TicketFiles {
  private static let makeKey = "make a pair with 'culvert ticket keygen'"

  /// Writes a new signing key to `path`, which only its owner can read, and its public half to `path`.pub.
  public static func createSigningKey(at path: String, replace: Bool = false) throws {
    for file in [path, path + ".pub"] where !replace && (try? FileStatus(of: file)) != nil {
      throw OperatorError("\(file) exists already", remedy: "choose another name, or overwrite it with --force")
    }
    var random = SystemRandomNumberGenerator()
    guard let key = HairpinPrivateKey.generate(using: &random) else {
      throw OperatorError("no key can be made", remedy: "check that libcrypto has Ed25519")
    }
    var seed = key.seedText()
    defer { wipe(&seed) }
    var text = Array("\(KeyFileContent.signingComment) for hairpin tickets; keep it secret\n".utf8)
    // No growing, which would leave a copy behind.
    text.reserveCapacity(text.count + seed.count + 1)
    defer { wipe(&text) }
    text += seed
    text.append(UInt8(ascii: "\n"))
    try PosixFile.writeAtomically(text, to: path, replace: replace)
    let half = "\(KeyFileContent.verificationComment), for culvert-relay\n\(Base64.encode(key.publicKey.bytes))\n"
    try PosixFile.writeAtomically(Array(half.utf8), to: path + ".pub", mode: 0o644, replace: replace)
  }

  /// - Throws: `OperatorError` for a file that is missing, no key, not this user's, or open to others.
  public static func readSigningKey(_ path: String) throws(OperatorError) -> HairpinPrivateKey {
    var text = try PrivateFile.read(path, "signing key", remedy: makeKey)
    defer { wipe(&text) }
    let lines = text.split(separator: UInt8(ascii: "\n")).filter { $0.first != UInt8(ascii: "#") }
    var digits = lines.count == 1 ? Array(lines[0]) : []
    defer { wipe(&digits) }
    var seed = Base64.decode(text: digits) ?? []
    defer { wipe(&seed) }
    guard let key = HairpinPrivateKey(seed: seed) else {
      throw OperatorError("\(path) holds no signing key", remedy: makeKey)
    }
    return key
  }

  /// Writes one side's file, which only its owner can read.
  public static func write(_ file: HairpinTicketFile, to path: String, replace: Bool = false) throws {
    guard replace || (try? FileStatus(of: path)) == nil else {
      throw OperatorError("\(path) exists already", remedy: "choose another --out, or overwrite it with --force")
    }
    try PosixFile.writeAtomically(Array(file.text.utf8), to: path, replace: replace)
  }
}

extension HairpinTicketFile {
  /// Reads a file that `culvert ticket` wrote.
  /// - Throws: `OperatorError` for a file that is missing, not one, not this user's, or open to others.
  public init(path: String) throws(OperatorError) {
    let text = try PrivateFile.read(path, "ticket", remedy: "have one issued with 'culvert ticket'")
    do {
      try self.init(text: String(decoding: text, as: UTF8.self))
    } catch {
      throw OperatorError("\(path) is no ticket file", remedy: error.description)
    }
  }
}
