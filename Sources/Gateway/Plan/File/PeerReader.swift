import Dataplane
import Host
import Identity
import PacketIO
import Settings

/// Reads the peers of a gateway's file, one after the other, and sees to it that they do not clash.
struct PeerReader {
  /// What has been read of the gateway itself.
  private let plan: GatewayPlan
  /// Nil where that is wrong.
  private let ownName: String?
  private let ownReach: Reach
  private let ownAddresses: Set<IPAddress>
  private let directory: String
  private let problems: ProblemList

  /// What earlier peers have claimed, and where.
  private struct Claim {
    let peer: String
    let line: Int
  }
  private var names: [String: Int] = [:]
  private var prefixes: [Prefix: Claim] = [:]
  private var translations: TranslationReader
  private var receivingSPIs: [UInt32: Claim] = [:]
  private var keys: [Fingerprint: Claim] = [:]
  private var secrets: [Fingerprint: Claim] = [:]
  private var identities: [HostIdentityTag: Claim] = [:]

  static let known =
    [
      "name", "address", "paths", "reach", "prefixes", "cipher", "secret", "send", "receive",
      "extended-sequence-numbers",
      "implicit-iv", "replay-window", "copy-dscp", "workers", "keep-alive", "access", "translation", "aggregation",
      "mtu",
    ] + KeyReader.known.filter { $0 != "secret" }

  /// What the file called them when it was read by older versions.
  private static let renamed = ["roads": "paths"]

  init(of plan: GatewayPlan, ownName: String?, ownReach: Reach, directory: String, problems: ProblemList) {
    self.plan = plan
    self.ownName = ownName
    self.ownReach = ownReach
    ownAddresses = Set(plan.interface.addresses.map(\.address))
    self.directory = directory
    self.problems = problems
    translations = TranslationReader(lan: plan.lan, problems: problems)
  }

  /// - Parameter number: the peer's place in the list, from 1, its name until it has one.
  /// - Returns: nil where too much is missing; everything wrong has been reported then.
  mutating func peer(_ setting: Setting, number: Int) -> PlannedPeer? {
    let name = PeerReader.name(of: setting) ?? "\(number)"
    let reader = SettingReader(
      setting, line: setting.line, place: "peer \(name)", known: PeerReader.known, renamed: PeerReader.renamed,
      problems: problems)
    checkName(reader)
    let found = PathReader(
      peer: reader, listen: plan.listen, ownReach: ownReach, directory: directory, relays: plan.relays,
      identity: plan.identity
    ).paths()
    let (paths, hairpins) = (found.paths, found.hairpins)
    let list = reader.prefixes("prefixes")
    let translation = translations.translation(reader, name: name, prefixes: list.map(\.value))
    claim(list, reader, peer: name, translation)
    let cipher = reader.has("cipher") ? reader.choice("cipher", Cipher.allCases) : .aes128GCM
    let keepAlive = reader.value("keep-alive", "a number", "write seconds from 0 (never) to 3600") { text in
      Double(text).flatMap { (0...3600).contains($0) ? Duration.seconds($0) : nil }
    }
    let window = replayWindow(reader)
    let aggregates = reader.flag("aggregation") ?? false
    let mtu = reader.number("mtu", in: 576...65535, "bytes")
    if KeyReader.isMeant(reader) {
      let keyReader = KeyReader(reader: reader, plan: plan, ownName: ownName, directory: directory)
      guard let (agreed, secret) = keyReader.keys(peer: name, cipher: cipher, paths: paths.map(\.path)) else {
        return nil
      }
      var keys = agreed
      keys.partner.relays = paths.filter { $0.name.hasPrefix(PathReader.relayName) }.map(\.path)
      claim(reader, peer: name, keys, secret)
      let access = FirewallReader.access(reader)
      let configuration = PeerConfiguration(
        name: name, prefixes: list.map(\.value), paths: paths, keepAliveInterval: keepAlive?.value ?? .seconds(20),
        translation: translation, access: access, aggregates: aggregates, mtu: mtu, negotiatesKeys: true)
      var peer = PlannedPeer(configuration, keys: keys, replayWindow: window, hairpins: hairpins)
      peer.certificateNames = found.certificateNames
      return peer
    }
    let extended = reader.flag("extended-sequence-numbers") ?? true
    let implicit = reader.flag("implicit-iv") ?? false
    let access = FirewallReader.access(reader)
    guard var (send, receive) = directions(reader, peer: name, cipher: cipher) else { return nil }
    send.association.extendedSequenceNumbers = extended
    receive.association.extendedSequenceNumbers = extended
    send.association.implicitIV = implicit
    receive.association.implicitIV = implicit
    send.association.copiesDSCP = reader.flag("copy-dscp") ?? false
    receive.association.replayWindow = window
    claim(reader, peer: name, send: send, receive: receive)
    if reader.has("workers") {
      reader.add("workers", "a peer with manual keys has one worker", "remove it")
    }
    for agreed in KeyReader.terms where reader.has(agreed) {
      reader.add(agreed, "the keys of this peer are manual", "remove it, or name the peer by 'gid' instead of its keys")
    }
    let configuration = PeerConfiguration(
      name: name, prefixes: list.map(\.value), paths: paths,
      inbound: [receive.association], outbound: send.association,
      keepAliveInterval: keepAlive?.value ?? .seconds(20), translation: translation, access: access,
      aggregates: aggregates, mtu: mtu)
    var peer = PlannedPeer(configuration, sendKeyName: send.file, receiveKeyName: receive.file, hairpins: hairpins)
    peer.certificateNames = found.certificateNames
    return peer
  }

  // MARK: Name, address, prefixes

  private static func name(of setting: Setting) -> String? {
    guard case .table(let entries) = setting.value, let entry = entries.first(where: { $0.name == "name" }),
      case .scalar(let text) = entry.setting.value
    else { return nil }
    return GatewayFileReader.validName(text)
  }

  private mutating func checkName(_ reader: SettingReader) {
    guard reader.has("name") else {
      reader.reportMissing("name", "give the peer the name it has in its own file")
      return
    }
    guard let name = reader.value("name", "a name", GatewayFileReader.nameRemedy, GatewayFileReader.validName) else {
      return
    }
    if name.value == ownName {
      reader.add("name", "this gateway itself has that name", "give each gateway its own name")
    }
    if let first = names.updateValue(name.line, forKey: name.value) {
      reader.add("name", "'\(name.value)' is given twice, first on line \(first)", "give each peer its own name")
    }
  }

  private mutating func claim(
    _ list: [Located<Prefix>], _ reader: SettingReader, peer: String, _ translation: TranslationConfiguration
  ) {
    if !reader.has("prefixes") { reader.reportMissing("prefixes", "list the networks behind the peer") }
    for element in list {
      let prefix = element.value
      // Known here by another prefix, or to be, it is in nobody's way.
      if translation.theirs.contains(where: { $0.real == prefix }) { continue }
      if let claim = prefixes[prefix] {
        if translation.mode == .automatic, !plan.lan.isEmpty { continue }
        reader.add(
          "prefixes", "\(prefix) belongs to peer \(claim.peer) already, on line \(claim.line)",
          "remove it from one, or name this gateway's own prefixes in 'lan', so that the gateways find another",
          line: element.line)
      } else {
        prefixes[prefix] = Claim(peer: peer, line: element.line)
      }
      if prefix.length == prefix.address.bitWidth, ownAddresses.contains(prefix.address) {
        reader.add(
          "prefixes", "\(prefix.address) is this gateway's own address", "list the peer's addresses",
          line: element.line)
      }
    }
  }

  private func replayWindow(_ reader: SettingReader) -> Int {
    guard let window = reader.number("replay-window", in: 64...8192, "packets, a multiple of 64,") else { return 2048 }
    if window % 64 != 0 {
      reader.add("replay-window", "\(window) is not a multiple of 64", "write \((window + 63) / 64 * 64)")
    }
    return window
  }

  // MARK: Keys

  /// One direction of a tunnel, and the lines to blame when it clashes with another.
  private struct Direction {
    var association: SecurityAssociationConfiguration
    let file: String
    let keyLine: Int
    let spiLine: Int
  }

  private func directions(
    _ reader: SettingReader, peer: String, cipher: Cipher?
  ) -> (send: Direction, receive: Direction)? {
    let given = ["send", "receive"].filter(reader.has)
    guard given.count == 2 else {
      if let only = given.first {
        let missing = only == "send" ? "receive" : "send"
        reader.reportMissing(missing, "give each direction its own SPI and key, or use 'gid' instead of both")
      } else {
        reader.reportMissing(
          "gid", "write the peer's, as 'culvert identity FILE' prints it there, or name a 'secret' file")
      }
      return nil
    }
    let send = manual(reader, "send", cipher: cipher)
    let receive = manual(reader, "receive", cipher: cipher)
    guard let send, let receive else { return nil }
    return (send, receive)
  }

  private func manual(_ reader: SettingReader, _ direction: String, cipher: Cipher?) -> Direction? {
    guard let group = reader.group(direction, known: ["spi", "key"]) else { return nil }
    let remedy = "write a number from 256 (0x100) to 0xffffffff, the same as at the peer's other end"
    for name in ["spi", "key"] where !group.has(name) {
      group.reportMissing(name, name == "spi" ? remedy : PeerReader.nameFile(.key(cipher ?? .aes128GCM)))
    }
    let spi = group.value("spi", "an SPI", remedy, PeerReader.spi)?.value
    if let spi, spi < 256 { group.add("spi", "\(spi) is reserved", remedy) }
    guard let key = PeerReader.key(group, "key", in: directory, as: .key(cipher ?? .aes128GCM)), let cipher else {
      return nil
    }
    guard key.key.count == cipher.keyMaterialLength else {
      group.add(
        "key",
        "\(key.file) holds \(key.key.count) bytes, \(cipher.rawValue) needs \(cipher.keyMaterialLength) (key and salt)",
        KeyFile.Kind.key(cipher).remedy)
      return nil
    }
    guard let spi else { return nil }
    return Direction(
      association: SecurityAssociationConfiguration(spi: spi, cipher: cipher, key: key.key), file: key.file,
      keyLine: key.line, spiLine: group.line("spi"))
  }

  private static func nameFile(_ kind: KeyFile.Kind) -> String { "name a file; \(kind.remedy)" }

  static func key(
    _ reader: SettingReader, _ name: String, in directory: String, as kind: KeyFile.Kind
  ) -> (key: KeyMaterial, file: String, line: Int)? {
    guard let text = reader.text(name, nameFile(kind)) else { return nil }
    let file = SettingReader.resolve(text.value, in: directory)
    do {
      return (try KeyFile.read(file, as: kind), file, text.line)
    } catch {
      if KeyFile.looksLikeSecret(text.value), (try? FileStatus(of: file)) == nil {
        reader.add(
          name, "a secret stands where the name of its file should",
          "write it into a file that only you can read, and make a new one if others have seen this")
        return nil
      }
      reader.add(name, error.problem, error.remedy)
      return nil
    }
  }

  private static func spi(_ text: String) -> UInt32? {
    text.lowercased().hasPrefix("0x") ? UInt32(text.dropFirst(2), radix: 16) : UInt32(text)
  }

  /// Nobody is two peers, and each of two who have one secret could pass for the other.
  private mutating func claim(_ reader: SettingReader, peer: String, _ keys: PlannedKeys, _ secret: KeyMaterial?) {
    if let secret {
      let claim = Claim(peer: peer, line: reader.line("secret"))
      if let other = secrets.updateValue(claim, forKey: Fingerprint(secret)) {
        reader.add(
          "secret", "peer \(other.peer) has the same, on line \(other.line), so each can pass for the other",
          "make one for each peer with 'culvert keygen --secret FILE'")
      }
      return
    }
    let kind = reader.has("key") ? "key" : "gid"
    let claim = Claim(peer: peer, line: reader.line(kind))
    if let other = identities.updateValue(claim, forKey: keys.partner.remote) {
      reader.add(kind, "is that of peer \(other.peer) too, on line \(other.line)", "give each peer its own")
    }
  }

  /// One key in two places means one nonce for two packets, which gives both away (RFC 4106 §9).
  private mutating func claim(_ reader: SettingReader, peer: String, send: Direction, receive: Direction) {
    for direction in [send, receive] {
      let claim = Claim(peer: peer, line: direction.keyLine)
      guard let other = keys.updateValue(claim, forKey: Fingerprint(direction.association.key)) else { continue }
      let user = other.peer == peer ? "the other direction" : "peer \(other.peer)"
      problems.add(
        direction.keyLine, "\(reader.place): the key is used for \(user) too, on line \(other.line)",
        "give each direction of each peer its own key, made with 'culvert keygen --cipher'")
    }
    let spi = receive.association.spi
    if let other = receivingSPIs.updateValue(Claim(peer: peer, line: receive.spiLine), forKey: spi) {
      problems.add(
        receive.spiLine,
        "\(reader.place): SPI 0x\(String(spi, radix: 16)) is received from peer \(other.peer) already, "
          + "on line \(other.line)", "choose another SPI, here and at the peer")
    }
  }
}
