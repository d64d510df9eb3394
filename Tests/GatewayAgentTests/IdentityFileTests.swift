import Foundation
import Host
import Identity
import KeyAgreement
import Keying
import PacketIO
import Settings
import Testing

@testable import Dataplane
@testable import Gateway

/// What a gateway's file says of identities, its own and its peers', and of keys that are agreed upon.
@Suite struct IdentityFileTests {
  /// Files of three gateways' identities: `alpha.key`, `beta.key`, `gamma.key`, each with its public half.
  private struct Identities {
    let workshop: Workshop
    let gids: [String: HostIdentityTag]

    init() throws {
      workshop = try Workshop()
      try workshop.usualKeys()
      var gids: [String: HostIdentityTag] = [:]
      for (name, kind) in [("alpha", HostIdentity.Kind.p256), ("beta", .ed25519), ("gamma", .p384)] {
        gids[name] = try IdentityFile.create(kind, at: workshop.file("\(name).key")).tag
      }
      self.gids = gids
    }

    func gid(_ name: String) throws -> HostIdentityTag { try #require(gids[name]) }

    /// A text with GIDs in place of `GID(name)`.
    func plan(_ text: String) throws -> GatewayPlan {
      try workshop.parse(gids.reduce(text) { $0.replacing("GID(\($1.key))", with: "\($1.value)") })
    }

    func partners(_ text: String) throws -> [Partner] { try plan(text).peers.compactMap(\.keys?.partner) }
  }

  private static let good = """
    name: alpha
    identity: alpha.key
    peers:
      - name: beta
        address: 192.0.2.2
        prefixes: [10.2.0.0/24]
        gid: "GID(beta)"
        post-quantum: off
        replay-window: 64
        copy-dscp: true
      - name: gamma
        prefixes: [10.3.0.0/24]
        key: gamma.key.pub
        cipher: aes-256-gcm
        post-quantum: required
        rekey: {time: 10min, packets: 1000000, bytes: 500G}
      - name: delta
        prefixes: [10.4.0.0/24]
        secret: alpha-delta.secret
        implicit-iv: no
    """

  @Test func readsEveryKindOfPeer() throws {
    let identities = try Identities()
    let plan = try identities.plan(Self.good)
    #expect(plan.identity?.tag == identities.gids["alpha"])
    #expect(plan.peers.allSatisfy { $0.configuration.negotiatesKeys && $0.configuration.outbound == nil })
    #expect(plan.configuration.peers.allSatisfy { $0.inbound.isEmpty && $0.workerOutbound.isEmpty })
    let keys = try plan.peers.map { try #require($0.keys) }
    #expect(keys.map(\.partner.name) == ["beta", "gamma", "delta"])

    let beta = keys[0].partner
    #expect(beta.local == plan.identity && beta.remote == identities.gids["beta"] && beta.remoteIdentity == nil)
    #expect(beta.mix == nil && beta.postQuantum == .off && beta.lifetime == KeyLifetime() && !beta.isForeign)
    #expect(beta.paths == plan.peers[0].configuration.paths.map(\.path) && beta.paths.count == 1)
    #expect(beta.suites == ESPSuite.all && keys[0].terms == AssociationTerms(copiesDSCP: true, replayWindow: 64))

    let gamma = keys[1].partner
    #expect(gamma.remote == identities.gids["gamma"] && gamma.remoteIdentity?.tag == gamma.remote)
    #expect(gamma.suites == [ESPSuite(.aes256GCM, implicitIV: true), ESPSuite(.aes256GCM)])
    #expect(gamma.lifetime == KeyLifetime(time: .seconds(600), packets: 1_000_000, bytes: 500_000_000_000))
    #expect(gamma.postQuantum == .required && keys[1].terms == AssociationTerms())

    let delta = keys[2].partner
    #expect(delta.mix != nil && delta.local != plan.identity && delta.postQuantum == .preferred)
    #expect(delta.suites.allSatisfy { !$0.implicitIV } && delta.suites.count == 3)
    #expect(plan.configuration.peers.map(\.name) == ["beta", "gamma", "delta"])
    try plan.configuration.validate(transports: 1, engine: .openSSL)
  }

  /// Who one side is is who the other looks for.
  @Test func bothEndsOfASecretMatch() throws {
    let identities = try Identities()
    func end(_ name: String, _ peer: String, _ prefix: String) throws -> Partner {
      let partners = try identities.partners(
        """
        name: \(name)
        peers:
          - { name: \(peer), prefixes: [\(prefix)], secret: alpha-delta.secret }
        """)
      return try #require(partners.first)
    }
    let a = try end("alpha", "delta", "10.2.0.0/24")
    let b = try end("delta", "alpha", "10.1.0.0/24")
    #expect(a.local.tag == b.remote && b.local.tag == a.remote && a.remote != b.remote)
    #expect(a.remoteIdentity == b.local.publicIdentity && a.mix == b.mix && a.mix != nil)
    // Another name is somebody else.
    let other = try end("alpha", "epsilon", "10.2.0.0/24")
    #expect(other.remote != a.remote && other.local == a.local)
  }

  @Test func anotherProgramIsOfferedWhatItKnows() throws {
    let partners = try Identities().partners(
      """
      name: alpha
      identity: alpha.key
      peers:
        - {name: beta, prefixes: [10.2.0.0/24], gid: "GID(beta)", interop: true}
      """)
    #expect(partners.map(\.isForeign) == [true])
  }

  @Test(arguments: [("60s", 60.0), ("60", 60), ("1h", 3600), ("1.5h", 5400), ("24h", 86_400), ("90min", 5400)])
  func timesAreWrittenWithUnits(_ text: String, _ seconds: Double) throws {
    let partners = try Identities().partners(Self.good.replacing("10min", with: text))
    #expect(partners[1].lifetime.time == .seconds(seconds) && partners[1].idleClose == nil)
    let idle = try Identities().partners(Self.good.replacing("post-quantum: off", with: "idle-close: \(text)"))
    #expect(idle[0].idleClose == .seconds(seconds))
  }

  // MARK: What is wrong

  typealias Case = FileMistake

  private static let makeIdentity = "make one with 'culvert keygen --identity"

  static let cases = [
    // The gateway's own
    Case(
      "identity: alpha.key", "identity: none.key", line: 2,
      "identity: identity file /none.key cannot be read: No such file or directory", makeIdentity),
    Case(
      "identity: alpha.key", "identity: open.key", line: 2, "identity: identity file /open.key can be used by others",
      "chmod 600 /open.key"),
    Case(
      "identity: alpha.key", "identity: hidden.pub", line: 2,
      "identity: identity file /hidden.pub holds the public half only", "name the private one, /hidden"),
    // Its mode is another, which is not what is wrong with it.
    Case(
      "identity: alpha.key", "identity: alpha.key.pub", line: 2,
      "identity: identity file /alpha.key.pub holds the public half only", "name the private one, /alpha.key"),
    Case(
      "identity: alpha.key", "identity: shared.secret", line: 2,
      "identity: identity file /shared.secret holds a secret, and no identity",
      "write 'secret' at the peer that shares it"),
    Case(
      "identity: alpha.key", "identity: ab.key", line: 2,
      "identity: identity file /ab.key: it holds no private key in PEM form", makeIdentity),
    Case(
      "identity: alpha.key", "identity: locked.key", line: 2,
      "identity: identity file /locked.key: the private key is encrypted", "decrypt it with 'openssl pkey"),
    Case(
      "identity: alpha.key", "identity: rsa1024.key", line: 2,
      "identity: identity file /rsa1024.key: an RSA key of 1024 bits is not supported", "use P-256, P-384, Ed25519"),
    Case("identity: alpha.key", "identity: .", line: 2, "identity: identity file /. is not a plain file", makeIdentity),
    Case(
      "identity: alpha.key", "identity: [alpha.key]", line: 2, "identity: a list stands where a value should",
      "write a path"),

    // Who the peer is
    Case(
      "\"GID(beta)\"", "\"2001:db8::1\"", line: 7, "peer beta: gid: '2001:db8::1' is not a GID",
      "write what 'culvert identity FILE' prints for the peer, in quotes"),
    Case(
      "GID(beta)", "abcde-fghij-klmno-234Z7", line: 7,
      "peer beta: gid: 'abcde-fghij-klmno-234Z7' is the short form of a GID",
      "write what 'culvert identity FILE' prints for the peer, in quotes"),
    Case(
      "GID(beta)", "abcde-fghij-klmno-23417", line: 7, "peer beta: gid: 'abcde-fghij-klmno-23417' is not a GID",
      "write what"),
    Case("\"GID(beta)\"", "192.0.2.2", line: 7, "peer beta: gid: '192.0.2.2' is not a GID", "write what"),
    Case("\"GID(beta)\"", "beta", line: 7, "peer beta: gid: 'beta' is not a GID", "write what"),
    Case("\"GID(beta)\"", "[]", line: 7, "peer beta: gid: a list stands where a value should", "write what"),
    Case(
      "GID(beta)", "GID(alpha)", line: 7, "peer beta: gid: this gateway itself has that GID", "write the peer's"),
    Case(
      "gamma.key.pub", "alpha.key.pub", line: 13, "peer gamma: key: this gateway itself has that GID",
      "write the peer's"),
    Case(
      "GID(beta)", "GID(gamma)", line: 13, "peer gamma: key: is that of peer beta too, on line 7",
      "give each peer its own"),
    Case(
      "gamma.key.pub", "beta.key.pub", line: 13, "peer gamma: key: is that of peer beta too, on line 7",
      "give each peer its own"),
    Case(
      "gamma.key.pub", "none.pub", line: 13,
      "peer gamma: key: public key file /none.pub cannot be read: No such file or directory",
      "bring it from the peer: 'culvert keygen --identity FILE' has made FILE.pub there"),
    Case(
      "gamma.key.pub", "gamma.key", line: 13,
      "peer gamma: key: public key file /gamma.key holds a private key, which its gateway alone is to have",
      "name its public half, /gamma.key.pub"),
    Case(
      "gamma.key.pub", "ab.key", line: 13,
      "peer gamma: key: public key file /ab.key: it holds no public key in PEM form", "give the file with"),
    Case(
      "gamma.key.pub", "shared.secret", line: 13, "peer gamma: key: public key file /shared.secret holds a secret",
      "write 'secret' instead of 'key'"),
    Case(
      "secret: alpha-delta.secret", "secret: beta.key", line: 19,
      "peer delta: secret: secret file /beta.key holds a gateway's identity, and no secret",
      "name the peer by 'gid' or 'key' instead, or make one with 'culvert keygen --secret FILE'"),
    Case(
      "secret: alpha-delta.secret", "secret: beta.key.pub", line: 19,
      "peer delta: secret: secret file /beta.key.pub holds a public key, and no secret",
      "write 'key' instead of 'secret'"),
    Case(
      "secret: alpha-delta.secret", "secret: none.secret", line: 19,
      "peer delta: secret: secret file /none.secret cannot be read: No such file or directory",
      "make one with 'culvert keygen --secret FILE'"),
    Case(
      "gamma.key.pub", ".", line: 13, "peer gamma: key: public key file /. cannot be read: Is a directory", "bring it"),

    // One of several
    Case(
      "post-quantum: off", "secret: alpha-beta.secret", line: 8,
      "peer beta: secret: 'gid' says already who the peer is", "remove one of them"),
    Case(
      "post-quantum: off", "key: beta.key.pub", line: 8, "peer beta: key: 'gid' says already who the peer is",
      "remove one of them"),
    Case(
      "post-quantum: off", "send: {spi: 0x1001, key: ab.key}", line: 8,
      "peer beta: send: keys are agreed upon with this peer", "remove it, or 'gid'"),
    Case(
      "gid: \"GID(beta)\"", "send: {spi: 0x1001, key: ab.key}\n    receive: {spi: 0x1002, key: ba.key}", line: 9,
      "peer beta: post-quantum: the keys of this peer are manual", "remove it, or name the peer by 'gid'"),

    // Keys' lives
    Case(
      "10min", "59s", line: 16,
      "peer gamma: rekey: time: '59s' is not a time from 60 s to 24 h, as 90s, 50min or 1h", "write a time"),
    Case("10min", "25h", line: 16, "peer gamma: rekey: time: '25h' is not a time", "write a time"),
    Case("10min", "1d", line: 16, "peer gamma: rekey: time: '1d' is not a time", "write a time"),
    Case("10min", "nan", line: 16, "peer gamma: rekey: time: 'nan' is not a time", "write a time"),
    Case("10min", "-1h", line: 16, "peer gamma: rekey: time: '-1h' is not a time", "write a time"),
    Case("10min", "1e400", line: 16, "peer gamma: rekey: time: '1e400' is not a time", "write a time"),
    Case(
      "packets: 1000000", "packets: 1000", line: 16,
      "peer gamma: rekey: packets: '1000' is not a number of packets from 65536 to 4294967296", "write a number"),
    Case("packets: 1000000", "packets: 5000000000", line: 16, "peer gamma: rekey: packets: '5000000000'", "write"),
    Case(
      "500G", "2T", line: 16, "peer gamma: rekey: bytes: '2T' is not a number of bytes from 1M to 1T, as 500G",
      "write a number"),
    Case(
      "packets: 1000000", "pakets: 1000000", line: 16, "peer gamma: rekey: no setting is called 'pakets'",
      "did you mean 'packets'?"),
    Case(
      "rekey: {time: 10min, packets: 1000000, bytes: 500G}", "rekey: 1h", line: 16,
      "peer gamma: rekey: '1h' stands where settings should", "write 'name: value' lines"),

    // What else is agreed upon
    Case(
      "post-quantum: off", "post-quantum: maybe", line: 8, "peer beta: post-quantum: 'maybe' is unknown",
      "known are preferred, required, off"),
    Case(
      "post-quantum: off", "idle-close: 5s", line: 8, "peer beta: idle-close: '5s' is not a time from 10 s to 24 h",
      "write a time from 10 s to 24 h, as 30min"),
    Case(
      "post-quantum: off", "interop: perhaps", line: 8, "peer beta: interop: 'perhaps' is not true or false",
      "write true or false"),
    Case(
      "post-quantum: required", "interop: true", line: 14,
      "peer gamma: cipher: other programs than Culvert know aes-128-gcm only", "remove it, or 'interop'"),
    Case(
      "replay-window: 64", "interop: yes\n    implicit-iv: yes", line: 10,
      "peer beta: implicit-iv: other programs than Culvert do not know it", "remove it, or 'interop'"),
    Case(
      "cipher: aes-256-gcm", "interop: true", line: 15,
      "peer gamma: post-quantum: other programs than Culvert have no post-quantum keys", "remove it, or 'interop'"),
  ]

  @Test(arguments: cases) func isReportedOnItsLine(_ item: Case) throws {
    let identities = try Identities()
    let workshop = identities.workshop
    try workshop.write("open.key", try workshop.read("alpha.key"), mode: 0o640)
    try workshop.write("hidden.pub", try workshop.read("beta.key.pub"))
    try KeyFile.create(.secret, at: workshop.file("shared.secret"))
    for (name, options) in [
      ("locked.key", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:x"]),
      ("rsa1024.key", ["rsa", "-pkeyopt", "rsa_keygen_bits:1024"]),
    ] where item.testDescription.contains(name) {
      let process = Process()
      process.executableURL = URL(filePath: "/usr/bin/env")
      process.arguments = ["openssl", "genpkey", "-out", workshop.file(name), "-algorithm"] + options
      process.standardError = FileHandle.nullDevice
      try process.run()
      process.waitUntilExit()
      try #require(process.terminationStatus == 0)
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: workshop.file(name))
    }
    item.expect(in: workshop, good: Self.good, isWhole: false) { _ = try identities.plan($0) }
  }

  @Test func anIdentityIsNeededWhereAPeerHasOne() throws {
    let identities = try Identities()
    for (setting, name) in [("gid: \"GID(beta)\"", "gid"), ("key: beta.key.pub", "key")] {
      let text = "name: alpha\npeers:\n  - name: beta\n    prefixes: [10.2.0.0/24]\n    \(setting)"
      let error = #expect(throws: FileProblems.self) { try identities.plan(text) }
      #expect(error?.problems.map(\.line) == [5])
      #expect(
        error?.problems.first?.problem == "peer beta: \(name): this gateway has no identity of its own")
      #expect(
        error?.problems.first?.remedy
          == "make one with 'culvert keygen --identity FILE', and name it: 'identity: FILE'")
    }
  }

  // MARK: Files

  @Test(arguments: HostIdentity.Kind.allCases) func whatIsCreatedIsReadBack(kind: HostIdentity.Kind) throws {
    let workshop = try Workshop()
    let made = try IdentityFile.create(kind, at: workshop.file("a.key"))
    #expect(try workshop.names() == ["a.key", "a.key.pub"])
    #expect(try workshop.mode("a.key") == 0o600 && workshop.mode("a.key.pub") == 0o644)
    #expect(try IdentityFile.read(workshop.file("a.key")).tag == made.tag)
    #expect(try IdentityFile.readPublic(workshop.file("a.key.pub")).tag == made.tag)
    for (file, isPrivate) in [("a.key", true), ("a.key.pub", false)] {
      let found = try IdentityFile.readEither(workshop.file(file))
      #expect(found.identity == made.publicIdentity && found.isPrivate == isPrivate)
    }
    let kinds = [
      HostIdentity.Kind.p256: "ECDSA P-256", .p384: "ECDSA P-384", .ed25519: "Ed25519", .rsa2048: "RSA 2048",
      .rsa3072: "RSA 3072",
    ]
    #expect(made.publicIdentity.kind == kinds[kind] && HostIdentityTag.isShort(made.tag.short))
    #expect(HostIdentityTag("\(made.tag)") == made.tag)
    #expect(try workshop.read("a.key.pub").contains("BEGIN PUBLIC KEY"))
  }

  /// Neither half of an identity that is there already is lost: the public one may be somebody else's.
  @Test(arguments: ["a.key", "a.key.pub"]) func existingFilesAreReplacedOnlyWhenForced(name: String) throws {
    let workshop = try Workshop()
    try workshop.write(name, "precious")
    let error = #expect(throws: OperatorError.self) { try IdentityFile.create(.p256, at: workshop.file("a.key")) }
    #expect(error?.problem == "\(workshop.file(name)) exists already")
    #expect(try workshop.names() == [name] && workshop.read(name) == "precious")
    let made = try IdentityFile.create(.p256, at: workshop.file("a.key"), replace: true)
    #expect(try IdentityFile.readPublic(workshop.file("a.key.pub")).tag == made.tag)
    #expect(try IdentityFile.read(workshop.file("a.key")).tag == made.tag)
  }
}
