import Dataplane
import Foundation
import PacketIO
import Testing

@testable import Lab

/// Programs of others that know ESP, and are asked what they think of ours.
enum Judges {
  /// Debian's interpreter: the one that has Debian's packages.
  static let python = "/usr/bin/python3"
  private static let scripts = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Interop")

  /// Whether scapy and python-cryptography are there; says so when not.
  static let hasScapy: Bool = {
    let status = try? ProcessHandle(python, ["-c", "import scapy, cryptography"], isRegistered: false).wait(timeout: 60)
    if status == .exited(0) { return true }
    print("SKIPPED: tests in which scapy judges: it is missing; run scripts/setup --tests")
    return false
  }()

  /// Whether clients of relays that were written from the documents can run; says so when not.
  static let canRunClients: Bool = {
    guard Program.exists, Tool.exists(Program.relay) else {
      print("SKIPPED: clients written from the documents: they need culvert and culvert-relay")
      return false
    }
    let status = try? ProcessHandle(python, ["-c", "import cryptography"], isRegistered: false).wait(timeout: 60)
    if status == .exited(0) { return true }
    print("SKIPPED: clients written from the documents: python3-cryptography is missing; run scripts/setup --tests")
    return false
  }()

  static let hasTshark: Bool = {
    if Tool.exists("tshark") { return true }
    print("SKIPPED: tests in which tshark judges: it is missing; run scripts/setup --tests")
    return false
  }()

  /// A browser that runs without a screen; nil: there is none, which it says.
  static let browser: String? = {
    if let browser = ["chromium", "chromium-browser", "google-chrome"].first(where: { Tool.exists($0) }) {
      return browser
    }
    print("SKIPPED: a browser's visit to port 443: there is no chromium; install the package chromium")
    return nil
  }()

  /// The path of a script of `Tests/Interop`.
  static func script(_ name: String) -> String { scripts.appending(path: name).path }

  /// An association as the scripts take it.
  struct Association: Encodable {
    let spi: UInt32
    let cipher: String
    let key: String
    let extended: Bool
    /// The half of the sequence number that is not sent.
    let high: UInt64
    let implicitIV: Bool
    /// The low half to begin with.
    let next: UInt64

    /// - Parameter side: who sends.
    init(_ plan: TunnelPlan, from side: Side) {
      let first = plan.firstSequences[side] ?? 1
      spi = plan.spi(side)
      cipher = plan.cipher.rawValue
      key = plan.keyBytes(side).hexadecimal
      extended = plan.extended
      high = first >> 32
      implicitIV = plan.implicitIV
      next = first & 0xFFFF_FFFF
    }
  }

  /// What `open_capture.py` takes: a capture of the wire, and where to put what a side's packets held.
  struct CaptureDescription: Encodable {
    var capture: String
    var output: [String: String]
    var associations: [Association]
  }

  /// What `open_capture.py` answers.
  struct OpenedCapture: Decodable {
    struct Association: Decodable {
      var judge: String
      var opened: Int
      var dummies: Int
      var shared: Int
      var failures: [String]
    }
    var associations: [String: Association]
    var unknown: Int
  }

  /// Runs a script of `Tests/Interop` on a description; returns what it prints.
  static func run<Answer: Decodable>(
    _ script: String, _ description: some Encodable, in namespace: Namespace? = nil, answer: Answer.Type
  ) async throws -> Answer {
    let directory = try TemporaryDirectory()
    let file = try directory.write(
      "description.json", String(decoding: JSONEncoder().encode(description), as: UTF8.self))
    let path = Judges.script(script)
    let output = try await blocking {
      // Precompiled scripts shall not be left in the checkout.
      try Tool.run(python, ["-B", path, file], in: namespace)
    }
    // Warnings of the interpreter may come first.
    let json = output.split(separator: "\n").last ?? ""
    return try JSONDecoder().decode(Answer.self, from: Data(json.utf8))
  }
}

extension [UInt8] {
  var hexadecimal: String { map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() }

  init?(hexadecimal text: Substring) {
    func digit(_ character: UInt8) -> UInt8? {
      switch character {
      case 48...57: character - 48
      case 97...102: character - 87
      default: nil
      }
    }
    let digits = Array(text.utf8)
    guard digits.count % 2 == 0 else { return nil }
    self = []
    reserveCapacity(digits.count / 2)
    for index in stride(from: 0, to: digits.count, by: 2) {
      guard let high = digit(digits[index]), let low = digit(digits[index + 1]) else { return nil }
      append(high << 4 | low)
    }
  }
}

/// tshark, given the keys.
enum Tshark {
  struct Packet: Equatable {
    var spi: UInt32
    var sequence: UInt32
    /// What tshark says of the ICV; nil: nothing.
    var isICVGood: Bool?
    var source: String
    /// As tshark decrypted it, with padding and trailer; nil: it did not.
    var decrypted: [UInt8]?
  }

  /// What it calls the ciphers that it knows.
  static func name(_ cipher: Cipher) -> String? {
    cipher == .chacha20Poly1305 ? nil : "AES-GCM with 16 octet ICV [RFC4106]"
  }

  static func open(_ capture: String, _ associations: [(SecurityAssociationConfiguration, key: [UInt8])]) throws
    -> [Packet]
  {
    var options = ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]
    for (association, key) in associations {
      guard let name = name(association.cipher) else { continue }
      let spi = "0x" + String(association.spi, radix: 16)
      options += [
        "-o", "uat:esp_sa:\"IPv4\",\"*\",\"*\",\"\(spi)\",\"\(name)\",\"0x\(key.hexadecimal)\",\"NULL\",\"\"",
      ]
    }
    let fields = ["esp.spi", "esp.sequence", "esp.icv_good", "esp.icv_bad", "ip.src", "esp.decrypted_data"]
    let arguments =
      ["-r", capture, "-Y", "esp", "-T", "fields", "-E", "separator=;", "-E", "occurrence=f"] + options
      + fields.flatMap { ["-e", $0] }
    // Into a file, because it is more than the lab keeps of what a program says.
    try Tool.run("sh", ["-c", "exec tshark \"$@\" >\"$0\"", "\(capture).txt"] + arguments)
    let output = try String(contentsOfFile: "\(capture).txt", encoding: .utf8)
    return output.utf8.split(separator: UInt8(ascii: "\n")).map { Substring($0) }.compactMap { line in
      let words = line.utf8.split(separator: UInt8(ascii: ";"), omittingEmptySubsequences: false).map { Substring($0) }
      guard words.count == fields.count, words[0].hasPrefix("0x"), let spi = UInt32(words[0].dropFirst(2), radix: 16),
        let sequence = UInt32(words[1])
      else { return nil }
      let isGood: Bool? =
        words[2] == "1" || words[2] == "True" ? true : words[3] == "1" || words[3] == "True" ? false : nil
      return Packet(
        spi: spi, sequence: sequence, isICVGood: isGood, source: String(words[4]),
        decrypted: words[5].isEmpty ? nil : [UInt8](hexadecimal: words[5]))
    }
  }
}
