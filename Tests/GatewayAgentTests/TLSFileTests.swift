import PacketIO
import Settings
import Testing
import TransportSupport
import Transports

@testable import Gateway

/// A gateway's file with TLS: what it means, and what is said when it is wrong.
@Suite struct TLSFileTests {
  private let workshop: Workshop

  /// Two certificates with their keys, `a.pem` and `a.key`, `b.pem` and `b.key`.
  init() throws {
    workshop = try Workshop()
    try workshop.usualKeys()
    for name in ["a", "b"] {
      let certificate = try TestCertificate(name: "\(name).example.org")
      try workshop.write("\(name).pem", String(decoding: certificate.chain, as: UTF8.self), mode: 0o644)
      try workshop.write("\(name).key", String(decoding: certificate.key, as: UTF8.self))
    }
  }

  @Test func readsAllThereIs() throws {
    let plan = try workshop.parse(
      Workshop.onePeer(
        """
        paths:
              - udp: 192.0.2.2
              - {tls: 192.0.2.2, name: beta.example.org}
              - tls: "[2001:db8::2]:8443"
        """,
        top: """
          listen-tls: 192.0.2.1
          tls: {certificate: a.pem, key: a.key, web-server: run/web.sock}
          """))
    #expect(plan.listenTLS == GatewayPlan.Listen(port: 443, address: IPAddress("192.0.2.1")))
    #expect(plan.tls.certificate != nil && plan.tls.webServer == workshop.file("run/web.sock"))
    let paths = try #require(plan.peers.first).configuration.paths
    #expect(paths.map(\.name) == ["udp", "tls", "tls"] && paths.map(\.path.transport) == [0, 2, 2])
    #expect(paths[2].path.endpoint == Endpoint("[2001:db8::2]:8443", defaultPort: 1))
    #expect(plan.certificateNames == [paths[1].path.endpoint: "beta.example.org"])
    #expect(paths[1].path.endpoint.port == 443)
  }

  @Test func whatIsLeftOutIsUsual() throws {
    let plan = try workshop.parse(Workshop.onePeer("address: tls:192.0.2.2", top: "listen-tls: 443"))
    #expect(plan.listenTLS == GatewayPlan.Listen(port: 443, address: nil) && plan.tls == PlannedTLS())
    let path = try #require(plan.peers.first?.configuration.paths.first?.path)
    #expect(path.transport == 2 && path.endpoint == Endpoint("192.0.2.2:443", defaultPort: 1))
    #expect(try workshop.parse(Workshop.onePeer("address: 192.0.2.2")).listenTLS == nil)
  }

  @Test func aReloadChangesNamesAndTheCertificate() throws {
    func plan(_ top: String, _ name: String) throws -> GatewayPlan {
      try workshop.parse(Workshop.onePeer("paths: [{tls: 192.0.2.2, name: \(name)}]", top: top))
    }
    let old = try plan("listen-tls: 443", "x.example.org")
    try PlanChange.check(from: old, to: try plan("listen-tls: 443", "y.example.org"), source: "x")
    try PlanChange.check(
      from: old, to: try plan("listen-tls: 443\ntls: {certificate: a.pem, key: a.key}", "x.example.org"), source: "x")
    for top in ["listen-tls: 444", "listen-tls: 443\ntls: {web-server: x}", ""] {
      #expect(throws: (any Error).self) { try PlanChange.check(from: old, to: plan(top, "x.example.org"), source: "x") }
    }
  }

  typealias Mistake = FileMistake

  static let mistakes: [Mistake] = [
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: none.pem, key: a.key}",
      problem: "tls: certificate: certificate file /none.pem cannot be read: No such file or directory",
      remedy: "then one is made at each start"),
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: a.pem, key: none.key}",
      problem: "tls: key: key file /none.key cannot be read: No such file or directory",
      remedy: "name the file with the certificate's private key"),
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: a.pem, key: a.pem}",
      problem: "tls: key: key file /a.pem can be used by others", remedy: "chmod 600 /a.pem"),
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: a.pem, key: ab.key}",
      problem: "tls: key: /ab.key has no private key that can be read", remedy: "openssl pkey -in OLD -out NEW"),
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: a.key, key: a.key}",
      problem: "tls: certificate: /a.key has no certificate", remedy: "write it in PEM"),
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: a.pem, key: b.key}",
      problem: "tls: key: /b.key is not the key of /a.pem", remedy: "name the two files that were made together"),
    Mistake(
      top: "listen-tls: 443\ntls: {certificate: a.pem}", problem: "tls: certificate: stands without 'key'",
      remedy: "name both files, or neither"),
    Mistake(
      top: "tls: {certificate: a.pem, key: a.key}", problem: "tls: there is no port to show it on",
      remedy: "add 'listen-tls: 443'"),
    Mistake(
      top: "listen-tls: 443\nlisten-tcp: 192.0.2.1:443", problem: "listen-tls: port 443 is that of 'listen-tcp'",
      remedy: "choose another port"),
    Mistake(
      peer: "paths: [{tls: 192.0.2.2, name: \"a b\"}]", problem: "peer beta: paths: tls: 'a b' is no host's name",
      remedy: "write the name that the certificate there is for"),
    Mistake(
      peer: "paths: [{tls: nowhere, name: x.org}]",
      problem: "peer beta: paths: tls: 'nowhere' is a host's name", remedy: "write 192.0.2.2:4500"),
    Mistake(
      peer: "paths: [{tcp: 192.0.2.2, name: x.org}]", problem: "peer beta: paths: a group of settings is no path",
      remedy: "begin each with its kind"),
  ]

  @Test(arguments: mistakes) func eachMistakeIsOneErrorWithARemedy(mistake: Mistake) throws {
    mistake.expect(in: workshop)
  }
}
