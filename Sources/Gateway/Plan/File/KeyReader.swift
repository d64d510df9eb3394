import Dataplane
import Identity
import KeyAgreement
import Keying
import PacketIO
import Settings

/// Reads how keys are agreed upon with a peer: who it is, or which secret is shared with it, and how long keys live.
struct KeyReader {
  let reader: SettingReader
  let plan: GatewayPlan
  /// Nil where that is wrong.
  let ownName: String?
  let directory: String

  /// Settings by which a peer is one that keys are agreed upon with; one of them.
  static let kinds = ["gid", "key", "secret"]
  /// What else is said of agreed keys.
  static let terms = ["post-quantum", "rekey", "idle-close", "interop"]
  static let known = kinds + terms

  static func isMeant(_ reader: SettingReader) -> Bool { kinds.contains(where: reader.has) }

  /// - Returns: nil where too much is wrong, which has been reported.
  func keys(peer name: String, cipher: Cipher?, paths: [Path]) -> (keys: PlannedKeys, secret: KeyMaterial?)? {
    let given = KeyReader.kinds.filter(reader.has)
    if given.count > 1 {
      reader.add(given[1], "'\(given[0])' says already who the peer is", "remove one of them")
      return nil
    }
    for other in ["send", "receive"] where reader.has(other) {
      reader.add(other, "keys are agreed upon with this peer", "remove it, or '\(given[0])'")
    }
    if reader.flag("extended-sequence-numbers") == false {
      reader.add("extended-sequence-numbers", "agreed keys always have them", "remove it")
    }
    if reader.has("workers") { reader.add("workers", "the peer tells that itself", "remove it") }
    guard case (var partner, let secret)? = partner(name, paths) else { return nil }
    partner.suites = suites(cipher)
    partner.postQuantum = reader.choice("post-quantum", PostQuantumMode.allCases) ?? .preferred
    partner.isForeign = reader.flag("interop") ?? false
    if partner.isForeign { checkForeign(partner, cipher) }
    partner.lifetime = lifetime()
    partner.idleClose = KeyReader.time(reader, "idle-close", 10...86_400, "a time from 10 s to 24 h, as 30min")
    let terms = AssociationTerms(copiesDSCP: reader.flag("copy-dscp") ?? false)
    return (PlannedKeys(partner: partner, terms: terms), secret)
  }

  private func partner(_ name: String, _ paths: [Path]) -> (Partner, KeyMaterial?)? {
    if reader.has("secret") {
      guard let (secret, _, line) = PeerReader.key(reader, "secret", in: directory, as: .secret), let ownName else {
        return nil
      }
      guard secret.count >= Partner.leastSecret else {
        reader.add(
          "secret", "\(secret.count) bytes are too few to be safe", KeyFile.Kind.secret.remedy, line: line)
        return nil
      }
      return (Partner(name: name, secret: secret, localName: ownName, paths: paths), secret)
    }
    guard let identity = plan.identity else {
      // What is wrong with that file has been reported.
      if !plan.namesIdentity {
        reader.add(
          reader.has("gid") ? "gid" : "key", "this gateway has no identity of its own",
          "make one with 'culvert keygen --identity FILE', and name it: 'identity: FILE'")
      }
      return nil
    }
    let remote: (HostIdentityTag, PublicHostIdentity?)
    if reader.has("key") {
      guard let file = reader.text("key", "name the peer's public key file") else { return nil }
      do {
        let known = try IdentityFile.readPublic(SettingReader.resolve(file.value, in: directory))
        remote = (known.tag, known)
      } catch {
        reader.add("key", error.problem, error.remedy)
        return nil
      }
    } else {
      guard let tag = reader.gid("gid", of: "the peer") else { return nil }
      remote = (tag, nil)
    }
    guard remote.0 != identity.tag else {
      reader.add(reader.has("key") ? "key" : "gid", "this gateway itself has that GID", "write the peer's")
      return nil
    }
    return (
      Partner(name: name, local: identity, remote: remote.0, remoteIdentity: remote.1, paths: paths), nil
    )
  }

  /// Other programs know what the RFCs have, and nothing of ours.
  private func checkForeign(_ partner: Partner, _ cipher: Cipher?) {
    let remedy = "remove it, or 'interop'"
    if reader.has("cipher"), let cipher, cipher != .aes128GCM {
      reader.add("cipher", "other programs than Culvert know \(Cipher.aes128GCM.rawValue) only", remedy)
    }
    if reader.flag("implicit-iv") == true {
      reader.add("implicit-iv", "other programs than Culvert do not know it", remedy)
    }
    if partner.postQuantum == .required {
      reader.add("post-quantum", "other programs than Culvert have no post-quantum keys", remedy)
    }
  }

  private func suites(_ cipher: Cipher?) -> [ESPSuite] {
    let implicit = reader.flag("implicit-iv")
    let wanted = reader.has("cipher") ? cipher.map { $0.rawValue } : nil
    return ESPSuite.all.filter { suite in
      (wanted == nil || suite.cipher.rawValue == wanted) && (implicit == nil || suite.implicitIV == implicit)
    }
  }

  private func lifetime() -> KeyLifetime {
    var lifetime = KeyLifetime()
    guard let group = reader.group("rekey", known: ["time", "packets", "bytes"]) else { return lifetime }
    if let time = KeyReader.time(group, "time", 60...86_400, "a time from 60 s to 24 h, as 90s, 50min or 1h") {
      lifetime.time = time
    }
    let packets = "a number of packets from 65536 to 4294967296"
    if let count = KeyReader.number(group, "packets", packets, [], 65_536...4_294_967_296) {
      lifetime.packets = UInt64(count)
    }
    let units = [("M", 1e6), ("G", 1e9), ("T", 1e12)]
    if let bytes = KeyReader.number(group, "bytes", "a number of bytes from 1M to 1T, as 500G", units, 1e6...1e12) {
      lifetime.bytes = UInt64(bytes)
    }
    return lifetime
  }

  private static func time(
    _ reader: SettingReader, _ name: String, _ range: ClosedRange<Double>, _ what: String
  ) -> Duration? {
    number(reader, name, what, [("s", 1.0), ("min", 60), ("h", 3600)], range).map { .seconds($0) }
  }

  private static func number(
    _ reader: SettingReader, _ name: String, _ what: String, _ units: [(String, Double)], _ range: ClosedRange<Double>
  ) -> Double? {
    reader.value(name, what, "write \(what)") { text in
      let unit = units.first { !$0.0.isEmpty && text.hasSuffix($0.0) } ?? ("", 1)
      return Double(text.dropLast(unit.0.count)).map { $0 * unit.1 }.flatMap { range.contains($0) ? $0 : nil }
    }?.value
  }
}

extension SettingReader {
  /// - Parameter owner: whose it is, for problems.
  func gid(_ name: String, of owner: String) -> HostIdentityTag? {
    let remedy = "write what 'culvert identity FILE' prints for \(owner), in quotes: \"2001:22:…\""
    guard let text = text(name, remedy) else { return nil }
    if let tag = HostIdentityTag(text.value) { return tag }
    let isShort = HostIdentityTag.isShort(text.value)
    add(name, "'\(shortened(text.value))' is \(isShort ? "the short form of a GID" : "not a GID")", remedy)
    return nil
  }
}
