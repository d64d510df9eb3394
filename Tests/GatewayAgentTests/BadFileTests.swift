import Foundation
import Settings
import Testing

@testable import Gateway

/// Every mistake is reported on its own line, in one line, with what to do about it.
@Suite struct BadFileTests {
  typealias Case = FileMistake

  static let cases: [Case] = [
    // Names
    Case("name: alpha\n", "\n", line: 2, "name is missing", "give the gateway a name, 'name: alpha'"),
    Case("name: alpha", "name: al/pha", line: 1, "name: 'al/pha' is not a name", "use 1 to 63 letters"),
    Case("name: alpha", "name: [alpha]", line: 1, "name: a list stands where a value should", "use 1 to 63 letters"),
    Case("mtu: 1380", "mut: 1380", line: 6, "interface: no setting is called 'mut'", "did you mean 'mtu'?"),
    Case("listen:", "lissten:", line: 2, "no setting is called 'lissten'", "did you mean 'listen'?"),
    Case(
      "    replay-window:", "    replay_window:", line: 19, "peer beta: no setting is called 'replay_window'",
      "did you mean 'replay-window'?"),
    Case(
      "listen:", "colour:", line: 2, "no setting is called 'colour'",
      "known are name, listen, listen-tcp, listen-tls, tls, reach, interface, control, state, engine, workers, firewall, "
        + "sharing, peers, lan, own, intermediate-pool, identity, relays, relay-tickets"),
    Case(
      "spi: 0x1001, key", "sp: 0x1001, key", line: 15, "peer beta: send: no setting is called 'sp'",
      "did you mean 'spi'?"),
    Case(
      "name: gamma", "name: beta", line: 21, "peer beta: name: 'beta' is given twice, first on line 12",
      "give each peer its own name"),
    Case(
      "name: gamma", "name: alpha", line: 21, "peer alpha: name: this gateway itself has that name",
      "give each gateway its own name"),
    Case(
      "- name: gamma", "- keep-alive: 1", line: 21, "peer 2: name is missing",
      "give the peer the name it has in its own file"),
    Case(
      "  name: culvert7", "  name: culvert/7", line: 4, "interface: name: 'culvert/7' is not a device name",
      "use 1 to 15 letters"),

    // Addresses
    Case(
      "[2001:db8::1]:4501", "2001:db8::1:4501:::", line: 2, "listen: '2001:db8::1:4501:::' is not a port or address",
      "write a port, or an address with a port: 4500, 192.0.2.1:4500"),
    Case("\"[2001:db8::1]:4501\"", "70000", line: 2, "listen: '70000' is not a port or address", "write a port"),
    Case(
      "10.1.0.1/24", "10.1.0.256/24", line: 5, "interface: addresses: '10.1.0.256/24' is not an address",
      "write an address with its prefix length"),
    Case(
      "10.1.0.1/24", "10.1.0.1/33", line: 5, "interface: addresses: '10.1.0.1/33' is not an address",
      "write an address with its prefix length"),
    Case(
      "10.1.0.1/24", "224.0.0.1/24", line: 5, "interface: addresses: 224.0.0.1 is no host's address",
      "write an address with its prefix length"),
    Case(
      "10.1.0.1/24", "fd00:1::1/64", line: 5, "interface: addresses: fd00:1::1 is given twice, first on line 5",
      "remove one"),
    Case(
      "10.99.0.0/16]", "10.99.0.1/16]", line: 7, "interface: routes: 10.99.0.1/16 has bits behind its length",
      "write 10.99.0.0/16"),
    Case(
      "\"[2001:db8::2]:4502\"", "beta.example:4500", line: 13,
      "peer beta: address: 'beta.example:4500' is a host's name", "names are not looked up: write 192.0.2.2:4500"),
    Case(
      "\"[2001:db8::2]:4502\"", "tcp:beta", line: 13, "peer beta: address: 'tcp:beta' is a host's name",
      "names are not looked up: write 192.0.2.2:4500"),
    Case(
      "\"[2001:db8::2]:4502\"", "192.0.2.256", line: 13,
      "peer beta: address: '192.0.2.256' is not an address with a port", "write 192.0.2.2:4500"),
    Case(
      "[2001:db8::2]:4502", "192.0.2.2:4500", line: 13,
      "peer beta: address: cannot be reached from [2001:db8::1]:4501", "use an IPv6 address, or listen on a port alone"),
    Case(
      "[2001:db8::2]:4502", "[ff02::1]:4500", line: 13, "peer beta: address: ff02::1 is no host's address",
      "write 192.0.2.2:4500"),
    Case(
      "10.3.0.0/24", "10.2.0.0/24", line: 22,
      "peer gamma: prefixes: 10.2.0.0/24 belongs to peer beta already, on line 14", "remove it from one"),
    Case(
      "- 10.4.0.0/24", "- fd00:2::/64", line: 32,
      "peer delta: prefixes: fd00:2::/64 belongs to peer beta already, on line 14", "remove it from one"),
    Case(
      "- 10.99.0.0/16", "- 10.4.0.0/24", line: 33,
      "peer delta: prefixes: 10.4.0.0/24 is given twice, first on line 32", "remove one"),
    Case(
      "10.3.0.0/24", "10.1.0.1/32", line: 22, "peer gamma: prefixes: 10.1.0.1 is this gateway's own address",
      "list the peer's addresses"),
    Case(
      "    prefixes: 10.3.0.0/24\n", "", line: 21, "peer gamma: prefixes is missing",
      "list the networks behind the peer"),
    Case(
      "- 10.4.0.0/24", "- { 10.4.0.0: 24 }", line: 32,
      "peer delta: prefixes: a group of settings is not a prefix", "write an address and a length"),

    // Numbers and words
    Case(
      "mtu: 1380", "mtu: 1279", line: 6, "interface: mtu: 1279 is too small for IPv6",
      "write 1280 or more, or use IPv4 only"),
    Case("mtu: 1380", "mtu: 70000", line: 6, "interface: mtu: 70000 is out of range", "write bytes from 576 to 65535"),
    Case(
      "mtu: 1380", "mtu: 14e2", line: 6, "interface: mtu: '14e2' is not a whole number",
      "write bytes from 576 to 65535"),
    Case(
      "mtu: 1380", "mtu:", line: 6, "interface: mtu: nothing stands where a value should",
      "write bytes from 576 to 65535"),
    Case("engine: openssl", "engine: opnessl", line: 10, "engine: 'opnessl' is unknown", "did you mean 'openssl'?"),
    Case(
      "cipher: chacha20-poly1305", "cipher: des", line: 23, "peer gamma: cipher: 'des' is unknown",
      "known are aes-128-gcm, aes-256-gcm, chacha20-poly1305"),
    Case(
      "implicit-iv: yes", "implicit-iv: perhaps", line: 18,
      "peer beta: implicit-iv: 'perhaps' is not true or false", "write true or false"),
    Case(
      "replay-window: 64", "replay-window: 100", line: 19,
      "peer beta: replay-window: 100 is not a multiple of 64", "write 128"),
    Case(
      "replay-window: 64", "replay-window: 8256", line: 19, "peer beta: replay-window: 8256 is out of range",
      "write packets, a multiple of 64, from 64 to 8192"),
    Case(
      "keep-alive: 0.5", "keep-alive: 20s", line: 20, "peer beta: keep-alive: '20s' is not a number",
      "write seconds from 0 (never) to 3600"),
    Case(
      "keep-alive: 0.5", "keep-alive: .nan", line: 20, "peer beta: keep-alive: '.nan' is not a number",
      "write seconds from 0 (never) to 3600"),
    Case(
      "control: alpha.sock", "control: /\(String(repeating: "x", count: 107))", line: 8,
      "control: the path is longer than 107 bytes", "choose a shorter one"),

    // Keys
    Case(
      "spi: 4098", "spi: 255", line: 16, "peer beta: receive: spi: 255 is reserved",
      "write a number from 256 (0x100) to 0xffffffff"),
    Case(
      "spi: 4098", "spi: 0x100000000", line: 16, "peer beta: receive: spi: '0x100000000' is not an SPI",
      "write a number from 256"),
    Case(
      "spi: 0x1003", "spi: 0x1002", line: 28,
      "peer gamma: SPI 0x1002 is received from peer beta already, on line 16",
      "choose another SPI, here and at the peer"),
    Case(
      "key: ca.key", "key: ba.key", line: 29,
      "peer gamma: receive: key: /ba.key holds 20 bytes, chacha20-poly1305 needs 36 (key and salt)",
      "make one with 'culvert keygen --cipher chacha20-poly1305 FILE'"),
    Case(
      "key: ba.key", "key: ab.key", line: 16,
      "peer beta: the key is used for the other direction too, on line 15",
      "give each direction of each peer its own key, made with 'culvert keygen --cipher'"),
    Case(
      "key: ba.key", "key: none.key", line: 16,
      "peer beta: receive: key: key file /none.key cannot be read: No such file or directory",
      "make one with 'culvert keygen --cipher aes-128-gcm FILE'"),
    Case(
      "key: ba.key", "key: open.key", line: 16, "peer beta: receive: key: key file /open.key can be used by others",
      "chmod 600 /open.key"),
    Case(
      "key: ba.key", "key: text.key", line: 16,
      "peer beta: receive: key: key file /text.key, line 2 is not hexadecimal",
      "make one with 'culvert keygen --cipher aes-128-gcm FILE'"),
    Case(
      "key: ba.key", "key: .", line: 16, "peer beta: receive: key: key file /. is not a plain file",
      "make one with 'culvert keygen --cipher aes-128-gcm FILE'"),
    Case(
      "    receive: { spi: 4098, key: ba.key }\n", "", line: 12, "peer beta: receive is missing",
      "give each direction its own SPI and key, or use 'gid' instead of both"),
    Case(
      "    secret: alpha-delta.secret", "", line: 30, "peer delta: gid is missing",
      "write the peer's, as 'culvert identity FILE' prints it there, or name a 'secret' file"),
    Case(
      "receive: { spi: 4098, key: ba.key }\n    extended-sequence-numbers: false", "secret: beta.secret", line: 15,
      "peer beta: send: keys are agreed upon with this peer", "remove it, or 'secret'"),
    Case(
      "secret: alpha-delta.secret", "secret: alpha-delta.secret\n    extended-sequence-numbers: no", line: 35,
      "peer delta: extended-sequence-numbers: agreed keys always have them", "remove it"),
    Case(
      "secret: alpha-delta.secret", "secret: alpha-delta.secret\n    workers: 2", line: 35,
      "peer delta: workers: the peer tells that itself", "remove it"),
    Case(
      "replay-window: 64", "workers: 2", line: 19, "peer beta: workers: a peer with manual keys has one worker",
      "remove it"),
    Case(
      "    send:    { spi: 0x1001, key: ab.key }\n    receive: { spi: 4098, key: ba.key }\n    "
        + "extended-sequence-numbers: false", "    secret: alpha-delta.secret", line: 32,
      "peer delta: secret: peer beta has the same, on line 15, so each can pass for the other",
      "make one for each peer with 'culvert keygen --secret FILE'"),
    Case(
      "secret: alpha-delta.secret", "secret: ab.key", line: 34,
      "peer delta: secret: 20 bytes are too few to be safe", "make one with 'culvert keygen --secret FILE'"),
    Case(
      "{ spi: 4098, key: ba.key }", "{ spi: 4098 }", line: 16, "peer beta: receive: key is missing",
      "name a file; make one with 'culvert keygen --cipher aes-128-gcm FILE'"),
    Case(
      "{ spi: 4098, key: ba.key }", "ba.key", line: 16,
      "peer beta: receive: 'ba.key' stands where settings should", "write 'name: value' lines"),
    Case(
      "the same key for two peers", line: 29, "peer gamma: the key is used for peer beta too, on line 16",
      "give each direction of each peer its own key"
    ) {
      $0.replacing("cipher: chacha20-poly1305", with: "cipher: aes-128-gcm").replacing("ac.key", with: "cc.key")
        .replacing("key: ca.key", with: "key: copy-of-ba.key")
    },

    // Shape
    Case("nothing", line: nil, "the file holds no settings", "start with the gateway's own name") { _ in "" },
    Case("only a comment", line: nil, "the file holds no settings", "start with the gateway's own name") { _ in "# x\n"
    },
    Case("a list", line: 1, "a list stands where settings should", "write 'name: value' lines") { _ in "- name: x" },
    Case("a word", line: 1, "'alpha' stands where settings should", "write 'name: value' lines") { _ in "alpha" },
    Case("peers: a word", line: 2, "peers: 'beta' stands where a list should", "begin each peer with '- name: '") { _ in
      "name: x\npeers: beta"
    },
    Case(
      "peers: one without dash", line: 2, "peers: a group of settings stands where a list should",
      "begin each peer with '- name: '"
    ) { _ in "name: x\npeers:\n  name: beta" },
    Case(
      "engine: openssl", "engine: openssl\nlisten: 4500", line: 11, "'listen' is given twice, first on line 2",
      "remove one of them"),
    Case(
      "replay-window: 64", "implicit-iv: no", line: 19, "'implicit-iv' is given twice, first on line 18",
      "remove one of them"),
    Case(
      "mtu: 1380", "\tmtu: 1380", line: 6, "not valid YAML: found character that cannot start any token",
      "check the colons, quotes and indentation (spaces, not tabs)"),
    Case(
      "mtu: 1380", "mtu: 1380: 2", line: 6, "not valid YAML: mapping values are not allowed in this context",
      "check the colons"),
    Case(
      "[10.99.0.0/16]", "[10.99.0.0/16", line: 8, "not valid YAML: did not find expected ',' or ']'",
      "check the colons"),
    Case("mtu: 1380", "mtu: \"13\u{1}80\"", line: 6, "holds a control character", "save the file as plain UTF-8 text"),
    Case("mtu: 1380", "? [a, b]\n  : c", line: 6, "a list or group stands where a name should", "write 'name: value'"),
    Case("two documents", line: 3, "not valid YAML: but found another document", "check the colons") { _ in
      "name: x\nlisten: 4500\n--- \nname: y"
    },
    Case("deep", line: 1, "settings are nested too deeply", "remove brackets") { _ in
      "name: " + String(repeating: "[", count: 40) + String(repeating: "]", count: 40)
    },
  ]

  @Test(arguments: cases) func isReportedOnItsLine(_ item: Case) throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    try workshop.key("cc.key", seed: 6)
    try workshop.key("beta.secret", 32, seed: 10)
    try workshop.key("copy-of-ba.key", seed: 2)
    try workshop.write("open.key", String(repeating: "ab", count: 20), mode: 0o640)
    try workshop.write("text.key", "# a\nxyz\n")
    item.expect(in: workshop)
  }

  @Test func reportsTheFirstFewInTheOrderOfLines() throws {
    let text = """
      name: x
      alpha: 1
      beta: 2
      interface:
        mtu: 3
        gamma: 4
      delta: 5
      epsilon: 6
      zeta: 7
      """
    let error = #expect(throws: FileProblems.self) { try GatewayFile.plan(text: text, path: "x.yaml") }
    #expect(error?.problems.map(\.line) == [2, 3, 5, 6, 7, 8, 9])
    let lines = error?.description.split(separator: "\n") ?? []
    #expect(lines.count == 6)
    let known =
      "name, listen, listen-tcp, listen-tls, tls, reach, interface, control, state, engine, workers, firewall, sharing, "
      + "peers, lan, own, intermediate-pool, identity, relays, relay-tickets"
    #expect(lines.first ?? "" == "x.yaml:2: no setting is called 'alpha'; known are \(known)")
    #expect(lines.last == "and 2 more")
  }

  @Test func textThatIsNotUTF8IsRefused() throws {
    let workshop = try Workshop()
    try Data([0x6E, 0xFF, 0xFE]).write(to: URL(fileURLWithPath: workshop.file("a.yaml")))
    let error = #expect(throws: FileProblems.self) { try GatewayFile(workshop.file("a.yaml")).plan() }
    #expect(error?.problems.first?.problem == "is not a text file")
  }

  /// However a file is mangled, the reader answers with a file or with problems that name a line of it.
  @Test(arguments: 0..<8) func noMutationTrapsTheReader(seed: Int) throws {
    let workshop = try Workshop()
    try workshop.usualKeys()
    var generator = SeededGenerator(seed: UInt64(seed))
    let good = Array(Workshop.good.utf8)
    let pieces = [
      "[", "]", "{", "}", ": ", "- ", "\n", "  ", "\t", "\"", "'", "&a ", "*a", "!!int ", "? ", "|\n", ">", "#", "%",
      "0x", "-1", "99999999999999999999", "null", "~", "\u{0}", "é", "\u{FEFF}", "---\n", "...", "<<: *a", "/", "::",
    ].map { Array($0.utf8) }
    var accepted = 0
    for _ in 0..<400 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let at = Int.random(in: 0..<bytes.count, using: &generator)
        let end = min(bytes.count, at + Int.random(in: 0...12, using: &generator))
        switch Int.random(in: 0..<5, using: &generator) {
        case 0: bytes.replaceSubrange(at..<end, with: [])
        case 1: bytes.insert(contentsOf: pieces.randomElement(using: &generator)!, at: at)
        case 2: bytes[at] = UInt8.random(in: .min ... .max, using: &generator)
        case 3: bytes.insert(contentsOf: bytes[at..<end], at: Int.random(in: 0...bytes.count, using: &generator))
        default: bytes.removeLast(bytes.count - at)
        }
        if bytes.isEmpty { bytes = [UInt8(ascii: "a")] }
      }
      let text = String(decoding: bytes, as: UTF8.self)
      let lines = text.split(separator: "\n", omittingEmptySubsequences: false).count
      do {
        _ = try workshop.parse(text)
        accepted += 1
      } catch {
        #expect(!error.problems.isEmpty)
        for problem in error.problems {
          #expect(problem.line ?? 1 >= 1 && problem.line ?? 1 <= lines + 1, "\(problem) of \(lines) lines")
          #expect(!problem.description.contains("\n"))
        }
      }
    }
    // Some mutations hit a comment or a digit and are fine; were none or all of them, the test would test nothing.
    #expect((1..<300).contains(accepted), "\(accepted)")
  }

  @Test(arguments: ["[", "{", "- ", "? ", "[{a: ", "'", "&a [*a, "]) func bottomlessNestingIsRefused(piece: String) {
    #expect(throws: FileProblems.self) {
      try GatewayFile.plan(text: "name: " + String(repeating: piece, count: 100_000), path: "x.yaml")
    }
  }
}
