import Foundation
import Host
import PacketIO
import Settings
import Testing
import Transports

@testable import culvert_relay

/// The relay's file: what it means, and that each mistake is named on its line.
@Suite struct RelayFileTests {
  private let directory: String

  init() throws {
    directory = NSTemporaryDirectory() + "culvert-relay-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    var random = SystemRandomNumberGenerator()
    let key = try #require(HairpinPrivateKey.generate(using: &random)).publicKey
    try write("control.key.pub", "# public\n\(Base64.encode(key.bytes))\n")
    try write("empty.pub", "# nothing\n")
  }

  private func write(_ name: String, _ text: String) throws {
    try text.write(toFile: "\(directory)/\(name)", atomically: true, encoding: .utf8)
  }

  private func read(_ text: String) throws -> RelayFile {
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try write("relay.yaml", text)
    return try RelayFile(contentsOf: "\(directory)/relay.yaml")
  }

  @Test func readsEverySetting() throws {
    let file = try read(
      """
      listen: ["0.0.0.0:4501", "[::]:4600"]
      public-key: control.key.pub
      name: relay-1
      ports: 20000-20010
      hairpins: 5
      tickets: 50
      bandwidth: 1G
      silence: 60
      records: "-"
      used-tickets: used
      """)
    #expect(file.options.listen.map(\.description) == ["0.0.0.0:4501", "[::]:4600"])
    #expect(file.options.publicKeys.count == 1 && file.options.name == "relay-1")
    #expect(file.options.ports == 20000...20010 && file.options.hairpins == 5 && file.options.tickets == 50)
    #expect(file.options.bandwidth == 1_000_000_000 && file.options.silence == 60)
    #expect(file.records == "-" && file.usedTickets == "\(directory)/used")
  }

  @Test func needsAKeyOnly() throws {
    let file = try read("public-key: [control.key.pub]")
    #expect(file.options.listen.map(\.description) == ["0.0.0.0:4501"])
    #expect(file.records == nil && file.usedTickets == nil)
  }

  @Test(
    arguments: [
      ("443", ["0.0.0.0:443", "[::]:443"]), ("192.0.2.1", ["192.0.2.1:443"]),
      ("[192.0.2.1, \"[2001:db8::1]:8443\"]", ["192.0.2.1:443", "[2001:db8::1]:8443"]),
    ] as [(String, [String])])
  func readsWhereItHasTLS(_ text: String, _ endpoints: [String]) throws {
    let file = try read("public-key: control.key.pub\nlisten-tls: \(text)\ntls: {web-server: web.sock}")
    #expect(file.options.tls.listen.map(\.description) == endpoints)
    #expect(file.options.tls.certificate == nil && file.options.tls.webServer == "\(directory)/web.sock")
  }

  /// Who can change the key can sign tickets.
  @Test func aKeyThatOthersCanWriteIsRefused() throws {
    try FileManager.default.setAttributes(
      [.posixPermissions: 0o666], ofItemAtPath: "\(directory)/control.key.pub")
    let error = #expect(throws: FileProblems.self) { try read("public-key: control.key.pub") }
    #expect(error?.problems.first?.problem == "public-key: others can write to \(directory)/control.key.pub")
    #expect(error?.problems.first?.remedy == "chmod go-w \(directory)/control.key.pub")
  }

  /// Who can change the file can have a ticket used again.
  @Test func usedTicketsAreNoLinkAndNobodyElses() throws {
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let path = "\(directory)/used"
    #expect(try UsedTickets.read(path, now: 0).isEmpty)
    try write("used", "")
    try FileManager.default.setAttributes([.posixPermissions: 0o666], ofItemAtPath: path)
    #expect(throws: OperatorError.self) { try UsedTickets.read(path, now: 0) }
    try FileManager.default.removeItem(atPath: path)
    try write("elsewhere", "")
    try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: "\(directory)/elsewhere")
    let error = #expect(throws: OperatorError.self) { try UsedTickets.read(path, now: 0) }
    #expect(error?.problem == "\(path) is a symbolic link")
  }

  @Test(
    arguments: [
      ("name: x", 1, "public-key is missing"),
      ("public-key: none.pub", 1, "public-key: DIR/none.pub cannot be read"),
      ("public-key: empty.pub", 1, "public-key: DIR/empty.pub holds no public key"),
      ("public-key: control.key.pub\nlisten: 192.0.2.1.9", 2, "listen: '192.0.2.1.9' is not an address with a port"),
      (
        "public-key: control.key.pub\nlisten: relay.example.org:4501", 2,
        "listen: 'relay.example.org:4501' is a host's name"
      ),
      (
        "public-key: control.key.pub\nlisten-tls: relay.example.org", 2,
        "listen-tls: 'relay.example.org' is a host's name"
      ),
      ("public-key: control.key.pub\nmetrics: localhost:9464", 2, "metrics: 'localhost:9464' is a host's name"),
      ("public-key: control.key.pub\nlisten: []", 2, "listen: there is none"),
      ("public-key: control.key.pub\nports: 9-3", 2, "ports: '9-3' is not a range of ports"),
      ("public-key: control.key.pub\nhairpins: 0", 2, "hairpins: 0 is out of range"),
      ("public-key: control.key.pub\nbandwidth: much", 2, "bandwidth: 'much' is not a rate"),
      ("public-key: control.key.pub\nused-tickets: '-'", 2, "used-tickets: it needs a file of its own"),
      ("public-key: control.key.pub\nrecords: a\nused-tickets: a", 3, "used-tickets: it needs a file of its own"),
      ("public-key: control.key.pub\nlisten-tls: 0", 2, "listen-tls: '0' is not a port or address"),
      (
        "public-key: control.key.pub\nlisten-tls: \"0.0.0.0:4501\"", 2,
        "listen-tls: 0.0.0.0:4501 stands in 'listen', too"
      ),
      ("public-key: control.key.pub\ntls: {web-server: a}", 2, "tls: there is no port to show it on"),
      (
        "public-key: control.key.pub\nlisten-tls: 443\ntls: {key: a}", 3, "tls: key: stands without 'certificate'"
      ),
      (
        "public-key: control.key.pub\nlisten-tls: 443\ntls: {certificate: none.pem, key: a}", 3,
        "tls: certificate: certificate file DIR/none.pem cannot be read: No such file or directory"
      ),
      (
        "public-key: control.key.pub\nlisten-tls: 443\ntls: {certificate: empty.pub, key: empty.pub}", 3,
        "tls: key: key file DIR/empty.pub can be used by others"
      ),
      ("public-key: control.key.pub\nhairpin: 3", 2, "no setting is called 'hairpin'"),
      ("public-key: &k control.key.pub\nname: *k", 2, "anchors and aliases ('&' and '*') are not supported"),
    ] as [(String, Int, String)])
  func eachMistakeIsNamedOnItsLine(_ text: String, _ line: Int, _ problem: String) throws {
    let error = #expect(throws: FileProblems.self) { try read(text) }
    #expect(error?.problems.map(\.line) == [line])
    #expect(error?.problems.first?.problem.replacing(directory, with: "DIR") == problem)
    #expect(error?.problems.first?.remedy.isEmpty == false)
  }
}
