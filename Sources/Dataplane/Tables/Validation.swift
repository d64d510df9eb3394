import PacketIO

/// What a dataplane has, as far as a configuration may not ask for more.
struct ConfigurationLimits {
  /// How many there are; paths may name these.
  var transports: Int
  var workers: Int
  var engine: CipherEngine
  /// Packets are carried, so some settings may not change.
  var isRunning = false
}

extension Configuration {
  /// Checks everything that can be wrong before any of it takes effect. Throws the first problem found.
  ///
  /// - Parameter running: the configuration in force, for what may not change while a dataplane runs.
  func validate(
    transports: Int, workers: Int = 1, engine: CipherEngine, running: Configuration? = nil
  ) throws(ConfigurationError) {
    let limits = ConfigurationLimits(
      transports: transports, workers: workers, engine: engine, isRunning: running != nil)
    var registry = Registry(running ?? self, sealing: .leftOut, workers: workers)
    _ = try registry.draft(self, limits: limits)
  }

  /// Checks all but the peers.
  /// - Parameter running: as of `validate`.
  func validateSettings(running: Configuration?) throws(ConfigurationError) {
    try interface.validate(running: running?.interface)
    try firewall.validate(running: running?.firewall)
    try validateGateway()
  }
}

extension PeerConfiguration {
  /// Checks what can be wrong with a peer alone; whether it is at odds with others, `Claims` knows.
  func validate(_ limits: ConfigurationLimits, localPrefixes: [Prefix]) throws(ConfigurationError) {
    let subject = ConfigurationError.Subject.peer(name)
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: subject, setting: setting, problem: problem, remedy: remedy)
    }
    guard !name.isEmpty else { throw problem("name", "is empty", "give each peer a name of its own") }
    guard !name.hasControlCharacters else {
      throw problem("name", "contains a control character", "choose a name that fits on a line")
    }
    try validateAccess()
    try validateMTU()
    try validatePaths(transports: limits.transports)
    guard keepAliveInterval >= .zero, keepAliveInterval <= .seconds(86_400) else {
      throw problem("keepAliveInterval", "is \(keepAliveInterval.inSeconds) s", "choose 0 (never) to 86400 s")
    }
    for association in inbound { try association.validate(subject, engine: limits.engine) }
    guard workerOutbound.isEmpty || workerOutbound.count == limits.workers else {
      throw problem(
        "workerOutbound", "has \(workerOutbound.count) associations", "give one for each of \(limits.workers) workers")
    }
    for association in allOutbound { try association.validate(subject, engine: limits.engine) }
    try validateSpaces(localPrefixes: localPrefixes)
  }

  private func validatePaths(transports: Int) throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .peer(name), setting: setting, problem: problem, remedy: remedy)
    }
    guard paths.count <= ConfiguredPath.listCapacity else {
      throw problem("paths", "there are \(paths.count)", "list \(ConfiguredPath.listCapacity) at most")
    }
    for (place, path) in paths.map(\.path).enumerated() {
      guard Int(path.transport) < transports else {
        throw problem("path", "there is no transport \(path.transport)", "name one of the \(transports) handed over")
      }
      guard path.endpoint.port != 0 else { throw problem("path", "the port is 0", "name the peer's UDP port") }
      guard !paths[..<place].contains(where: { $0.path == path }) else {
        throw problem("paths", "\(path.endpoint) is listed twice", "remove one of them")
      }
    }
  }

  static func nameIsUsedTwice(_ name: String) -> ConfigurationError {
    ConfigurationError(
      subject: .peer(name), setting: "name", problem: "is used by two peers", remedy: "give each peer a name of its own"
    )
  }
}

extension InterfaceConfiguration {
  func validate(running: InterfaceConfiguration?) throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .interface, setting: setting, problem: problem, remedy: remedy)
    }
    if case .name(let name) = source {
      let bytes = Array(name.utf8)
      guard (1...15).contains(bytes.count), !bytes.contains(UInt8(ascii: "/")), !bytes.contains(0),
        !bytes.contains(where: { $0 <= 32 }), name != ".", name != ".."
      else {
        throw problem(
          "name", "\(name.debugDescription) is no interface name",
          "choose 1 to 15 characters without spaces and slashes")
      }
    }
    let usesV6 = addresses.contains { !$0.address.isV4 }
    let smallest = usesV6 ? 1280 : 576
    guard (smallest...65535).contains(mtu) else {
      throw problem("mtu", "\(mtu) is out of range", "choose \(smallest) to 65535 bytes; 1400 fits most paths")
    }
    for address in addresses where !(1...address.address.bitWidth).contains(address.prefixLength) {
      throw problem(
        "addresses", "\(address.address)/\(address.prefixLength) has an impossible prefix length",
        "choose 1 to \(address.address.bitWidth)")
    }
    if let running {
      for (setting, changed) in [("source", running.source != source), ("offloads", running.offloads != offloads)]
      where changed {
        throw problem(setting, "cannot change while the dataplane runs", "stop it and start it anew")
      }
    }
  }
}

extension SecurityAssociationConfiguration {
  func validate(_ subject: ConfigurationError.Subject, engine: CipherEngine) throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: subject, setting: setting, problem: problem, remedy: remedy)
    }
    guard spi >= 256 else {
      throw problem("spi", "\(spi) is reserved (RFC 4303 section 2.1)", "choose 256 or greater")
    }
    guard key.count == cipher.keyMaterialLength else {
      throw problem(
        "key", "has \(key.count) bytes", "\(cipher.rawValue) takes \(cipher.keyLength) bytes of key and 4 of salt")
    }
    guard engine.supports(cipher) else {
      throw problem("cipher", "\(cipher.rawValue) is not in the library \(engine.rawValue)", "choose another cipher")
    }
    guard (64...8192).contains(replayWindow), replayWindow % 64 == 0 else {
      throw problem("replayWindow", "\(replayWindow) is not possible", "choose a multiple of 64 from 64 to 8192")
    }
    guard firstSequence >= 1, extendedSequenceNumbers || firstSequence <= UInt64(UInt32.max) + 1 else {
      throw problem("firstSequence", "\(firstSequence) is out of range", "begin at 1, or make a new key")
    }
  }
}

func hex(_ spi: UInt32) -> String { "0x" + String(spi, radix: 16) }
