import Foundation
import Glibc
import Lab
import Testing

extension NetworkTests {
  /// Clients of relays that were written from the documents alone, in another language, against the real program: what they
  /// find is what the documents say.
  @Suite(.enabled(if: Judges.canRunClients, "needs culvert, culvert-relay and python3-cryptography"))
  struct ForeignClientTests {
    private struct Enrolment: Encodable {
      let address: String
      let port: Int
      let gid: String
      let key: String
      let other: String
    }

    private struct Found: Decodable {
      let gid: String
      let enrolled, held, heldByGuess, older, known, again, sameToken, badCookie: Bool
      let silence, load: Int
      let seen: [JSONValue]
      let port: Int
      let unnamed, forged: [Int]
      let longer: [[Int]]

      enum CodingKeys: String, CodingKey {
        case gid, enrolled, held, older, known, again, silence, load, seen, port, unnamed, forged, longer
        case heldByGuess = "held-by-guess"
        case sameToken = "same-token"
        case badCookie = "bad-cookie"
      }
    }

    /// An address, or a port.
    private enum JSONValue: Decodable, Equatable {
      case text(String)
      case number(Int)

      init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
          self = .text(text)
        } else {
          self = .number(try container.decode(Int.self))
        }
      }
    }

    private func start(_ file: String, in namespace: Namespace) async throws -> ProcessHandle {
      try await blocking {
        let relay = try ProcessHandle(Program.relay, ["--config", file], in: namespace)
        try relay.waitUntil("it ran", timeout: 10) { $0.output.contains("relay runs") }
        return relay
      }
    }

    /// hello, challenge, enrol, enrolled, hold, held, older, and each refusal.
    @Test(.timeLimit(.minutes(1)), arguments: [[], ["--ed25519"]])
    func aClientEnrols(kind: [String]) async throws {
      let namespace = try await blocking { try Namespace("foreign") }
      defer { namespace.remove() }
      let directory = try TemporaryDirectory()
      var gids: [String: String] = [:]
      for name in ["relay", "gateway", "other"] {
        let outcome = try await Program.run(["keygen", "--identity", "\(directory.path)/\(name).key"] + kind)
        gids[name] = outcome.lines.last?.split(separator: " ").dropFirst().first.map(String.init)
      }
      try directory.write(
        "relay.yaml",
        """
        listen: ["127.0.0.1:4500"]
        identity: relay.key
        silence: 90
        pairs:
          - {between: ["\(gids["gateway"] ?? "")", "2001:22:1:2:3:4:5:6"]}
        """)
      let relay = try await start("\(directory.path)/relay.yaml", in: namespace)
      defer { relay.terminate() }
      let found = try await Judges.run(
        "relay_client.py",
        Enrolment(
          address: "127.0.0.1", port: 4500, gid: gids["relay"] ?? "", key: "\(directory.path)/gateway.key",
          other: "\(directory.path)/other.key"),
        in: namespace, answer: Found.self)
      #expect(found.gid == gids["gateway"])
      #expect(found.enrolled && found.held && !found.heldByGuess)
      #expect(found.older && found.known && found.again && found.sameToken)
      #expect(found.silence == 90 && found.load < 128)
      #expect(found.seen == [.text("127.0.0.1"), .number(found.port)])
      #expect(found.unnamed == [5, 13] && found.forged == [5, 2] && !found.badCookie)
      #expect(found.longer.isEmpty, "answers longer than questions: \(found.longer)")
    }

    private struct Hairpin: Decodable {
      let forged: [Int]
      let accepted, welcome, held: [[Int]]
      let portsDiffer: Bool
      let passed: Int

      enum CodingKeys: String, CodingKey {
        case forged, accepted, welcome, held, passed
        case portsDiffer = "ports-differ"
      }
    }

    /// Both gateways of a hairpin: present, prove, hold, and packets each way.
    @Test(.timeLimit(.minutes(1))) func aClientOpensAHairpin() async throws {
      let namespace = try await blocking { try Namespace("foreign") }
      defer { namespace.remove() }
      let directory = try TemporaryDirectory()
      let control = "\(directory.path)/control.key"
      _ = try await Program.run(["ticket", "keygen", control])
      let issued = try await Program.run(
        ["ticket", "--key", control, "--between", "a,b", "--proxy", "127.0.0.1:4501", "--out", directory.path])
      #expect(issued.lines.contains { $0.hasPrefix("culvert: warning: every relay of this key that has no name") })
      try directory.write("relay.yaml", "listen: [\"127.0.0.1:4501\"]\npublic-key: control.key.pub\n")
      let relay = try await start("\(directory.path)/relay.yaml", in: namespace)
      defer { relay.terminate() }
      let output = try await blocking {
        try Tool.run(
          Judges.python,
          [
            "-B", Judges.script("hairpin_client.py"), "\(directory.path)/a-b.a.ticket",
            "\(directory.path)/a-b.b.ticket",
          ],
          in: namespace)
      }
      let found = try JSONDecoder().decode(Hairpin.self, from: Data((output.split(separator: "\n").last ?? "").utf8))
      #expect(found.forged == [5, 2])
      #expect(found.accepted == [[4, 0], [4, 0]])
      // The second one is told that the first is there.
      #expect(found.welcome == [[7, 0], [7, 1]] && found.held == [[9, 1], [9, 1]])
      #expect(found.portsDiffer && found.passed == 4)
    }
  }
}
