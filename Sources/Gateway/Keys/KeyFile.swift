public import Dataplane
import Glibc
public import Host
import Keying
public import PacketIO
import Transports

/// Files that hold one secret: comment lines that begin with '#', and hexadecimal digits, with spaces and line
/// breaks where one likes. Only their owner may read them. The digits are never printed, nor kept longer than it
/// takes to read them.
public enum KeyFile {
  /// What a new file is for.
  public enum Kind: Sendable, Equatable {
    /// Key and salt of one direction (RFC 4106 §8.1, RFC 7634 §2).
    case key(Cipher)
    /// A secret that two gateways share and derive the keys of both directions from.
    case secret

    /// Random bytes in the file.
    public var length: Int {
      switch self {
      case .key(let cipher): cipher.keyMaterialLength
      case .secret: KeyFile.secretLength
      }
    }

    fileprivate var comment: String {
      switch self {
      case .key(let cipher): "# culvert key: \(cipher.rawValue), key and salt, for one direction of one tunnel"
      case .secret: "\(KeyFileContent.secretComment), for both directions of one tunnel"
      }
    }

    /// What such a file is called in errors.
    fileprivate var name: String {
      switch self {
      case .key: "key file"
      case .secret: "secret file"
      }
    }

    /// What to do where there is none.
    var remedy: String {
      switch self {
      case .key(let cipher): "make one with 'culvert keygen --cipher \(cipher.rawValue) FILE'"
      case .secret: "make one with 'culvert keygen --secret FILE'"
      }
    }

    /// Why a file is wrong that holds something else.
    fileprivate func refusal(_ path: String, _ content: KeyFileContent) -> OperatorError? {
      switch (self, content) {
      case (_, .secret): nil
      case (_, .signingKey), (_, .verificationKey):
        OperatorError("\(name) \(path) holds a control system's key", remedy: remedy)
      case (.key, _): OperatorError("\(name) \(path) holds an identity's key", remedy: remedy)
      case (.secret, .privateIdentity):
        OperatorError(
          "\(name) \(path) holds a gateway's identity, and no secret",
          remedy: "name the peer by 'gid' or 'key' instead, or \(remedy)")
      case (.secret, .publicIdentity):
        OperatorError("\(name) \(path) holds a public key, and no secret", remedy: "write 'key' instead of 'secret'")
      }
    }
  }

  /// Bytes of a pre-shared secret that `create` writes.
  public static let secretLength = Partner.leastSecret
  /// Bytes of the largest secret or key.
  static let mostBytes = 256

  /// Reads a secret or a key.
  /// - Throws: `OperatorError` for a file that is missing, not hexadecimal, not this user's, or open to others.
  public static func read(_ path: String, as kind: Kind) throws(OperatorError) -> KeyMaterial {
    do throws(OperatorError) {
      var text = try PrivateFile.read(path, kind.name, remedy: kind.remedy)
      defer { wipe(&text) }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(text.count / 2 + 1)
      defer { wipe(&bytes) }
      try decode(text, into: &bytes, path: path, kind)
      guard !bytes.isEmpty, bytes.count <= mostBytes else {
        throw OperatorError(
          "\(kind.name) \(path) is \(bytes.isEmpty ? "empty" : "too long")", remedy: kind.remedy)
      }
      return KeyMaterial(bytes)
    } catch {
      throw KeyFileContent(of: path).flatMap { kind.refusal(path, $0) } ?? error
    }
  }

  /// Writes a new secret from the kernel's random numbers, with mode 0600, as a whole or not at all.
  /// - Parameter replace: false: an existing file is refused.
  public static func create(_ kind: Kind, at path: String, replace: Bool = false) throws {
    guard replace || (try? FileStatus(of: path)) == nil else {
      throw OperatorError("\(path) exists already", remedy: "choose another name, or overwrite it with --force")
    }
    // The system's generator is getrandom(2).
    var generator = SystemRandomNumberGenerator()
    var bytes = (0..<kind.length).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    defer { wipe(&bytes) }
    var text = Array((kind.comment + "\n").utf8)
    text.reserveCapacity(text.count + 2 * bytes.count + 1)
    defer { wipe(&text) }
    for byte in bytes {
      text.append(hexadecimalDigits[Int(byte >> 4)])
      text.append(hexadecimalDigits[Int(byte & 15)])
    }
    text.append(UInt8(ascii: "\n"))
    try PosixFile.writeAtomically(text, to: path, replace: replace)
  }

  private static func decode(
    _ text: [UInt8], into bytes: inout [UInt8], path: String, _ kind: Kind
  ) throws(OperatorError) {
    for (index, line) in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
      var digits = line.drop { isBlank($0) }
      if digits.first == UInt8(ascii: "#") { continue }
      if digits.starts(with: "0x".utf8) { digits = digits.dropFirst(2) }
      var high: UInt8?
      for character in digits where !isBlank(character) {
        guard let digit = hexadecimalDigit(character) else {
          throw OperatorError("\(kind.name) \(path), line \(index + 1) is not hexadecimal", remedy: kind.remedy)
        }
        if let first = high {
          bytes.append(first << 4 | digit)
          high = nil
        } else {
          high = digit
        }
      }
      guard high == nil else {
        throw OperatorError(
          "\(kind.name) \(path), line \(index + 1) has an odd number of digits", remedy: kind.remedy)
      }
    }
  }

  /// Whether a text is more likely a secret than the name of its file: 16 bytes or more, in hexadecimal or base64.
  static func looksLikeSecret(_ text: String) -> Bool {
    let digits = text.hasPrefix("0x") ? text.dropFirst(2) : text[...]
    if digits.utf8.count >= 32, digits.utf8.allSatisfy({ hexadecimalDigit($0) != nil || isBlank($0) }) { return true }
    return text.utf8.count >= 40 && Base64.decode(text) != nil
  }

  private static func isBlank(_ character: UInt8) -> Bool {
    [UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r")].contains(character)
  }
}
