import Foundation
import PacketIO
import Transports
import Yams

/// The relay's file, read and checked.
struct RelayFile {
  var options: HairpinProxyOptions
  /// Where records go; nil: nowhere.
  var records: String?
  var usedTickets: String?

  private static let known = [
    "listen", "public-key", "name", "ports", "hairpins", "tickets", "bandwidth", "silence", "records", "used-tickets",
  ]

  /// - Throws: `RelayProblem`, one line.
  init(path: String) throws {
    let text: String
    do {
      text = try String(contentsOfFile: path, encoding: .utf8)
    } catch {
      throw RelayProblem("\(path) cannot be read", remedy: "name a file that exists and is text")
    }
    do {
      try self.init(text: text, directory: (path as NSString).deletingLastPathComponent)
    } catch let problem as RelayProblem {
      throw RelayProblem("\(path): \(problem)", remedy: "see 'culvert-relay --help'")
    }
  }

  init(text: String, directory: String) throws {
    let node: Node?
    do {
      node = try Yams.compose(yaml: text)
    } catch {
      throw RelayProblem("it is not YAML", remedy: "write 'name: value' lines")
    }
    guard let mapping = node?.mapping else { throw RelayProblem("it is empty", remedy: "write 'name: value' lines") }
    var values: [String: [String]] = [:]
    for (key, value) in mapping {
      let name = key.string ?? "?"
      guard RelayFile.known.contains(name) else {
        throw RelayProblem(
          "no setting is called '\(name)'", remedy: "known are \(RelayFile.known.joined(separator: ", "))")
      }
      let items = value.sequence.map { Array($0) } ?? [value]
      values[name] = try items.map {
        guard let text = $0.scalar?.string else {
          throw RelayProblem("\(name): something else stands where a value should", remedy: "write a value")
        }
        return text
      }
    }
    func one(_ name: String) throws -> String? {
      guard let all = values[name] else { return nil }
      guard all.count == 1 else { throw RelayProblem("\(name): one value is needed", remedy: "write one") }
      return all[0]
    }
    func number(_ name: String, _ range: ClosedRange<Int>) throws -> Int? {
      guard let text = try one(name) else { return nil }
      guard let value = Int(digits: text), range.contains(value) else {
        throw RelayProblem(
          "\(name): '\(text)' is not a number from \(range.lowerBound) to \(range.upperBound)", remedy: "write one")
      }
      return value
    }
    func place(_ path: String) -> String {
      path.hasPrefix("/") || path == "-" || directory.isEmpty ? path : "\(directory)/\(path)"
    }

    let listen = try (values["listen"] ?? ["0.0.0.0:\(HairpinTicketFile.standardPort)"]).map { text in
      guard let endpoint = Endpoint(text, defaultPort: HairpinTicketFile.standardPort) else {
        throw RelayProblem("listen: '\(text)' is no address with a port", remedy: "write it like 192.0.2.1:4501")
      }
      return endpoint
    }
    guard (1...16).contains(listen.count) else { throw RelayProblem("listen: 1 to 16 addresses", remedy: "write them") }
    guard let keyFiles = values["public-key"], !keyFiles.isEmpty else {
      throw RelayProblem("public-key is missing", remedy: "name the file that 'culvert ticket keygen' wrote")
    }
    options = HairpinProxyOptions(listen: listen, publicKeys: try keyFiles.map { try RelayFile.publicKey(place($0)) })
    options.name = try one("name") ?? ""
    if let text = try one("ports") {
      let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt16(digits: $0) ?? 0 }
      guard parts.count == 2, parts[0] > 0, parts[0] <= parts[1] else {
        throw RelayProblem("ports: '\(text)' is no range", remedy: "write it like 20000-59999")
      }
      options.ports = parts[0]...parts[1]
    }
    if let count = try number("hairpins", 1...30_000) { options.hairpins = count }
    if let count = try number("tickets", 1...10_000_000) { options.tickets = count }
    if let seconds = try number("silence", 4...65_535) { options.silence = UInt16(seconds) }
    if let text = try one("bandwidth") {
      guard let rate = BitRate(text) else {
        throw RelayProblem("bandwidth: '\(text)' is no rate", remedy: "write bits a second, like 100M or 1G")
      }
      options.bandwidth = rate.bitsPerSecond
    }
    records = try one("records").map(place)
    usedTickets = try one("used-tickets").map(place)
    if let usedTickets, usedTickets == "-" || usedTickets == records {
      throw RelayProblem("used-tickets: it needs a file of its own", remedy: "name another file")
    }
  }

  private static func publicKey(_ path: String) throws -> HairpinPublicKey {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      throw RelayProblem("public-key: \(path) cannot be read", remedy: "name a file of 'culvert ticket keygen'")
    }
    let lines = text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("#") }
    guard lines.count == 1, let bytes = Base64.decode(lines[0]), let key = HairpinPublicKey(bytes) else {
      throw RelayProblem("public-key: \(path) holds no public key", remedy: "name a file of 'culvert ticket keygen'")
    }
    return key
  }
}
