import Glibc
import Host
import PacketIO
import Relay
import Settings
import Transports

/// The relay's file, read and checked.
struct RelayFile {
  var options: HairpinProxyOptions
  /// Where records go; nil: nowhere.
  var records: String?
  var usedTickets: String?

  /// - Parameter path: "-" is standard input.
  /// - Throws: `FileProblems`.
  init(contentsOf path: String) throws(FileProblems) {
    let root: Setting
    do {
      root = try Setting(
        contentsOf: path, remedy: "name a file that exists and is text", firstSetting: "write 'name: value' lines")
    } catch {
      throw FileProblems([error])
    }
    let problems = ProblemList(file: path)
    self = RelayFileReader(root, path: path, problems: problems).file()
    try problems.throwIfAny()
  }

  fileprivate init(_ options: HairpinProxyOptions) { self.options = options }
}

private struct RelayFileReader {
  private let top: SettingReader
  private let directory: String

  private static let known = [
    "listen", "public-key", "name", "ports", "hairpins", "tickets", "bandwidth", "silence", "records", "used-tickets",
  ]

  init(_ root: Setting, path: String, problems: ProblemList) {
    top = SettingReader(root, line: root.line, place: "", known: RelayFileReader.known, problems: problems)
    directory = PosixFile.directory(of: path)
  }

  /// The file, as far as it can be read; what is wrong has been reported.
  func file() -> RelayFile {
    var options = HairpinProxyOptions(listen: listen(), publicKeys: publicKeys())
    options.name = top.text("name", "write the name that tickets have")?.value ?? ""
    options.ports = ports() ?? options.ports
    options.hairpins = top.number("hairpins", in: 1...30_000, "a number") ?? options.hairpins
    options.tickets = top.number("tickets", in: 1...10_000_000, "a number") ?? options.tickets
    options.silence = top.number("silence", in: 4...65_535, "seconds").map { UInt16($0) } ?? options.silence
    let bandwidth = top.value("bandwidth", "a rate", "write bits a second, like 100M or 1G", { BitRate($0) })
    options.bandwidth = bandwidth?.value.bitsPerSecond ?? options.bandwidth
    var file = RelayFile(options)
    file.records = path("records")
    file.usedTickets = path("used-tickets")
    if let used = file.usedTickets, used == "-" || used == file.records {
      top.add("used-tickets", "it needs a file of its own", "name another file")
    }
    return file
  }

  private func listen() -> [Endpoint] {
    let port = HairpinTicketFile.standardPort
    guard top.has("listen") else { return [Endpoint(address: IPAddress(v4: 0), port: port)] }
    let listen = top.list("listen", "an address with a port", "write it like 192.0.2.1:4501") {
      Endpoint($0, defaultPort: port)
    }
    if case .list(let list)? = top.setting("listen")?.setting.value, list.isEmpty {
      top.add("listen", "there is none", "write an address with a port")
    }
    if listen.count > 16 { top.add("listen", "there are \(listen.count) addresses", "write 16 at most") }
    return listen.map(\.value)
  }

  private func ports() -> ClosedRange<UInt16>? {
    top.value("ports", "a range of ports", "write it like 20000-59999") { text -> ClosedRange<UInt16>? in
      let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { UInt16(digits: $0) ?? 0 }
      return ends.count == 2 && ends[0] > 0 && ends[0] <= ends[1] ? ends[0]...ends[1] : nil
    }?.value
  }

  private func publicKeys() -> [HairpinPublicKey] {
    let remedy = "name the file that 'culvert ticket keygen' wrote"
    guard top.has("public-key") else {
      top.reportMissing("public-key", remedy)
      return []
    }
    return top.list("public-key", "a file's name", remedy, { $0 }).compactMap { element in
      let path = place(element.value)
      guard let file = try? Descriptor(open: path, O_RDONLY | O_NONBLOCK),
        let bytes = try? file.readAll(limit: 4096), case let text = String(decoding: bytes, as: UTF8.self)
      else {
        top.add("public-key", "\(path) cannot be read", remedy, line: element.line)
        return nil
      }
      // Whoever can change the key can sign tickets.
      if let objection = file.status.objection(to: path) {
        top.add("public-key", objection.problem, objection.remedy, line: element.line)
        return nil
      }
      let lines = text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("#") }
      guard lines.count == 1, let key = Base64.decode(lines[0]).flatMap({ HairpinPublicKey($0) }) else {
        top.add("public-key", "\(path) holds no public key", remedy, line: element.line)
        return nil
      }
      return key
    }
  }

  private func path(_ name: String) -> String? { top.text(name, "name a file").map { place($0.value) } }

  /// Relative to the file.
  private func place(_ path: String) -> String {
    path.hasPrefix("/") || path == "-" || directory == "." ? path : "\(directory)/\(path)"
  }
}
