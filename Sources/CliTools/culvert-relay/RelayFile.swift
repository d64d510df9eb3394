import Glibc
import Host
import Identity
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
  /// Where `culvert-relay show` asks; nil: nowhere.
  var control: String?
  /// Where figures are served to a monitoring system; nil: nowhere.
  var metrics: Endpoint?
  /// What a control system has said who may meet; nil: the file says it.
  var policyStore: PolicyStore?

  /// - Parameters:
  ///   - path: "-" is standard input.
  ///   - rehearses: what the start would open is tried, without leaving anything behind.
  /// - Throws: `FileProblems`.
  init(contentsOf path: String, rehearses: Bool = false) throws(FileProblems) {
    let root: Setting
    do {
      root = try Setting(
        contentsOf: path, remedy: "name a file that exists and is text", firstSetting: "write 'name: value' lines")
    } catch {
      throw FileProblems([error])
    }
    let problems = ProblemList(file: path)
    let reader = RelayFileReader(root, path: path, problems: problems)
    self = reader.file()
    if rehearses { reader.rehearse(self) }
    try problems.throwIfAny()
  }

  fileprivate init(_ options: HairpinProxyOptions) { self.options = options }

  /// A file with nothing but `groups` and `pairs`.
  /// - Throws: `FileProblems`.
  static func policy(contentsOf path: String) throws(FileProblems) -> RelayPolicy {
    let root: Setting
    do {
      root = try Setting(
        contentsOf: path, remedy: "name a file that exists and is text", firstSetting: "write 'pairs:' and a list")
    } catch {
      throw FileProblems([error])
    }
    let problems = ProblemList(file: path)
    let reader = SettingReader(
      root, line: root.line, place: "", known: RelayPolicyReader.known, problems: problems)
    let policy = RelayPolicyReader(reader: reader).policy()
    try problems.throwIfAny()
    return policy
  }
}

private struct RelayFileReader {
  private let top: SettingReader
  private let directory: String

  private static let known = [
    "listen", "public-key", "name", "ports", "hairpins", "tickets", "bandwidth", "silence", "records", "used-tickets",
    "identity", "policy", "policy-key", "policy-updates", "gateways", "relay-pairs", "control", "metrics",
    "listen-tls", "tls",
  ]
  private static let metricsPort: UInt16 = 9464
  /// What only an identity relay has.
  private static let ofIdentities =
    RelayPolicyReader.known + ["policy", "policy-key", "policy-updates", "gateways", "relay-pairs"]

  init(_ root: Setting, path: String, problems: ProblemList) {
    top = SettingReader(
      root, line: root.line, place: "", known: RelayFileReader.known + RelayPolicyReader.known, problems: problems)
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
    options.tls.listen = listenTLS(beside: options.listen)
    if let tls = TLSReader(top, directory: directory) {
      options.tls.certificate = certificate(tls)
      options.tls.webServer = tls.webServer()
    }
    let (relay, store) = relay(options)
    options.relay = relay
    var file = RelayFile(options)
    file.policyStore = store
    file.metrics = metrics(beside: options.listen + options.tls.listen)
    file.control = control()
    file.records = path("records")
    file.usedTickets = path("used-tickets")
    if let used = file.usedTickets, used == "-" || used == file.records {
      top.add("used-tickets", "it needs a file of its own", "name another file")
    }
    return file
  }

  private func metrics(beside others: [Endpoint]) -> Endpoint? {
    let metrics = top.value("metrics", "an address with a port", "write it like 127.0.0.1:9464", isAddress: true) {
      Endpoint($0, defaultPort: RelayFileReader.metricsPort)
    }?.value
    if let metrics, others.contains(where: { RelayFileReader.excludes($0, metrics) }) {
      top.add("metrics", "\(metrics) is where gateways come", "give it another port")
    }
    return metrics
  }

  /// Whether who listens at one cannot listen at the other.
  private static func excludes(_ a: Endpoint, _ b: Endpoint) -> Bool {
    let all = [IPAddress(v4: 0), IPAddress(v6High: 0, low: 0)]
    return a.port == b.port && a.address.isV4 == b.address.isV4
      && (a.address == b.address || all.contains(a.address) || all.contains(b.address))
  }

  private func control() -> String? {
    let path = path("control")
    if let path, path.utf8.count > UnixSocket.longestPath {
      top.add(
        "control", "a socket's name has \(UnixSocket.longestPath) bytes at most, and \(path) \(path.utf8.count)",
        "choose a shorter one")
    }
    return path
  }

  // MARK: Rehearsal

  /// Reports what the start would fail at.
  func rehearse(_ file: RelayFile) {
    let trials: [(String, OperatorError?)] = [
      ("used-tickets", file.usedTickets.flatMap { Rehearsal.usedTickets($0) }),
      ("records", file.records.flatMap { Rehearsal.appending(to: $0) }),
      ("control", file.control.flatMap { Rehearsal.listening(at: $0) }),
      ("metrics", file.metrics.flatMap { Rehearsal.listening(on: $0) }),
    ]
    for (name, error) in trials {
      if let error { top.add(name, error.problem, error.remedy) }
    }
  }

  // MARK: Identities

  private func relay(_ proxy: HairpinProxyOptions) -> (RelayOptions?, PolicyStore?) {
    guard top.has("identity") else {
      for name in Self.ofIdentities where top.has(name) {
        top.add(
          name, "the relay has no identity",
          "make one with 'culvert keygen --identity FILE', and name it: 'identity: FILE'")
      }
      return (nil, nil)
    }
    guard let identity = identity() else { return (nil, nil) }
    let store = policyStore(identity.tag)
    var options = RelayOptions(identity: identity, policy: store?.book.policy ?? policy())
    options.gateways = top.number("gateways", in: 2...65_536, "a number") ?? options.gateways
    options.pairs = top.number("relay-pairs", in: 1...262_144, "a number") ?? options.pairs
    options.silence = max(proxy.silence, 20)
    options.bandwidth = proxy.bandwidth
    options.ticketKeys = proxy.publicKeys
    options.name = proxy.name
    return (options, store)
  }

  /// The policy that a control system has given by signed updates.
  private func policyStore(_ relay: HostIdentityTag) -> PolicyStore? {
    guard top.has("policy-key") else {
      if top.has("policy-updates") { top.reportMissing("policy-key", "name the control system's public key") }
      return nil
    }
    for name in RelayPolicyReader.known + ["policy"] where top.has(name) {
      top.add(name, "stands beside 'policy-key'", "have a control system say who may meet, or this file")
    }
    let keys = keys("policy-key")
    guard let path = path("policy-updates") else {
      top.reportMissing("policy-updates", "name a file in which the updates are kept")
      return nil
    }
    do throws(OperatorError) {
      return try PolicyStore(path, PolicyBook(for: relay, keys: keys))
    } catch {
      top.add("policy-updates", error.problem, error.remedy)
      return nil
    }
  }

  private func identity() -> HostIdentity? {
    let remedy = "make one with 'culvert keygen --identity FILE'"
    guard let name = top.text("identity", remedy) else { return nil }
    let path = place(name.value)
    switch KeyFileContent(of: path) {
    case .publicIdentity:
      let half = path.hasSuffix(".pub") ? String(path.dropLast(4)) : "the file beside which FILE.pub was written"
      top.add("identity", "\(path) holds the public half only", "name the private one, \(half)")
      return nil
    case .signingKey, .verificationKey, .secret:
      top.add("identity", "\(path) holds another kind of key, and no identity", remedy)
      return nil
    case .privateIdentity, nil: break
    }
    do {
      let file = try Descriptor(open: path, O_RDONLY | O_NONBLOCK)
      let status = file.status
      if let objection = status.objection(to: path) {
        top.add("identity", objection.problem, objection.remedy)
        return nil
      }
      guard status.foreignPermissions == 0 else {
        top.add("identity", "others can read \(path)", "chmod 600 \(path)")
        return nil
      }
      var text = try file.readAll(limit: 8192)
      let identity = try HostIdentity(pem: KeyMaterial(taking: &text))
      guard RelayOptions.isFit(identity.publicIdentity) else {
        top.add(
          "identity", "its answers would be longer than what they answer",
          "use a key of P-256 or Ed25519: \(remedy)")
        return nil
      }
      return identity
    } catch let error as HostIdentityError {
      top.add("identity", "\(path): \(error.problem)", error.remedy)
    } catch {
      top.add("identity", "\(path) cannot be read", remedy)
    }
    return nil
  }

  /// From this file, or from one of its own.
  private func policy() -> RelayPolicy {
    guard top.has("policy") else {
      if top.has("policy-key") { return RelayPolicy() }
      if !top.has("pairs") { top.reportMissing("pairs", "say who may meet whom, or name a file: 'policy: FILE'") }
      return RelayPolicyReader(reader: top).policy()
    }
    for name in RelayPolicyReader.known where top.has(name) {
      top.add(name, "stands beside 'policy'", "have it in that file, or here")
    }
    guard let name = top.text("policy", "name a file") else { return RelayPolicy() }
    let path = place(name.value)
    do {
      return try RelayFile.policy(contentsOf: path)
    } catch {
      for problem in error.problems {
        top.add("policy", "\(path):\(problem.line ?? 1): \(problem.problem)", problem.remedy)
      }
      return RelayPolicy()
    }
  }

  private func listenTLS(beside plain: [Endpoint]) -> [Endpoint] {
    guard top.has("listen-tls") else { return [] }
    let port = TLSTransport.standardPort
    let remedy = "write a port, an address, or both: 443, 192.0.2.1, \"[2001:db8::1]:443\""
    let listen = top.list("listen-tls", "a port or address", remedy, isAddress: true) { text -> [Endpoint]? in
      if let port = UInt16(digits: text), port > 0 {
        // All addresses, of both families.
        return [IPAddress(v4: 0), IPAddress(v6High: 0, low: 0)].map { Endpoint(address: $0, port: port) }
      }
      return Endpoint(text, defaultPort: port).map { [$0] }
    }
    for element in listen {
      for twice in element.value where plain.contains(twice) {
        top.add("listen-tls", "\(twice) stands in 'listen', too", "give it another port", line: element.line)
      }
    }
    let endpoints = listen.flatMap(\.value)
    if endpoints.count > 16 { top.add("listen-tls", "there are \(endpoints.count) addresses", "write 16 at most") }
    return endpoints
  }

  private func listen() -> [Endpoint] {
    let port = HairpinTicketFile.standardPort
    guard top.has("listen") else { return [Endpoint(address: IPAddress(v4: 0), port: port)] }
    let listen = top.list("listen", "an address with a port", "write it like 192.0.2.1:4501", isAddress: true) {
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
      if top.has("identity") { return [] }
      top.reportMissing("public-key", remedy + "; or give an identity relay its 'identity'")
      return []
    }
    return keys("public-key")
  }

  /// Public keys in files that a setting names.
  private func keys(_ setting: String) -> [HairpinPublicKey] {
    let remedy = "name the file that 'culvert ticket keygen' wrote"
    return top.list(setting, "a file's name", remedy, { $0 }).compactMap { element in
      let path = place(element.value)
      switch KeyFileContent(of: path) {
      case .signingKey:
        top.add(
          setting, "\(path) holds the private half, which the control system alone is to have",
          "name the public one, \(path).pub", line: element.line)
        return nil
      case .privateIdentity, .publicIdentity, .secret:
        top.add(setting, "\(path) holds no control system's key", remedy, line: element.line)
        return nil
      case .verificationKey, nil: break
      }
      guard let file = try? Descriptor(open: path, O_RDONLY | O_NONBLOCK),
        let bytes = try? file.readAll(limit: 4096), case let text = String(decoding: bytes, as: UTF8.self)
      else {
        top.add(setting, "\(path) cannot be read", remedy, line: element.line)
        return nil
      }
      // Whoever can change the key can sign tickets.
      if let objection = file.status.objection(to: path) {
        top.add(setting, objection.problem, objection.remedy, line: element.line)
        return nil
      }
      let lines = text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("#") }
      guard lines.count == 1, let key = Base64.decode(lines[0]).flatMap({ HairpinPublicKey($0) }) else {
        top.add(setting, "\(path) holds no public key", remedy, line: element.line)
        return nil
      }
      return key
    }
  }

  /// Nil: one is made at the start.
  private func certificate(_ tls: TLSReader) -> TLSCertificate? {
    guard var files = tls.files() else { return nil }
    do throws(TLSCertificate.Problem) {
      return try TLSCertificate(chain: files.chain, key: KeyMaterial(taking: &files.key))
    } catch {
      tls.report(error.words(chain: files.chainPath, key: files.keyPath))
      return nil
    }
  }

  private func path(_ name: String) -> String? { top.text(name, "name a file").map { place($0.value) } }

  /// Relative to the file.
  private func place(_ path: String) -> String {
    path == "-" ? path : SettingReader.resolve(path, in: directory)
  }
}
