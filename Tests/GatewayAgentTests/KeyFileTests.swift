import Dataplane
import Foundation
import Host
import PacketIO
import Testing

@testable import Gateway

@Suite struct KeyFileTests {
  @Test(arguments: Cipher.allCases.map { KeyFile.Kind.key($0) } + [.secret])
  func whatIsCreatedIsReadBackAndDiffersEachTime(kind: KeyFile.Kind) throws {
    let workshop = try Workshop()
    try KeyFile.create(kind, at: workshop.file("a.key"))
    try KeyFile.create(kind, at: workshop.file("b.key"))
    #expect(try workshop.names() == ["a.key", "b.key"])
    #expect(try workshop.mode("a.key") == 0o600)
    let a = try KeyFile.read(workshop.file("a.key"), as: kind)
    #expect(a.count == kind.length)
    #expect(try KeyFile.read(workshop.file("b.key"), as: kind) != a)
    let lines = try workshop.read("a.key").split(separator: "\n")
    #expect(lines.count == 2 && lines[0].hasPrefix("# culvert ") && lines[1].count == 2 * kind.length)
  }

  @Test func existingFilesAreReplacedOnlyWhenForced() throws {
    let workshop = try Workshop()
    try workshop.write("a.key", "precious", mode: 0o644)
    let error = #expect(throws: OperatorError.self) {
      try KeyFile.create(.secret, at: workshop.file("a.key"))
    }
    #expect(
      error?.description
        == "\(workshop.file("a.key")) exists already; choose another name, or overwrite it with --force")
    #expect(try workshop.read("a.key") == "precious")
    try KeyFile.create(.secret, at: workshop.file("a.key"), replace: true)
    #expect(try KeyFile.read(workshop.file("a.key"), as: .secret).count == 32)
    #expect(try workshop.mode("a.key") == 0o600)
    #expect(try workshop.names() == ["a.key"])
  }

  @Test func aFailureLeavesNothingBehind() throws {
    let workshop = try Workshop()
    #expect(throws: (any Error).self) { try KeyFile.create(.secret, at: workshop.file("none/a.key")) }
    // A directory cannot be replaced by a file.
    try FileManager.default.createDirectory(atPath: workshop.file("d"), withIntermediateDirectories: false)
    #expect(throws: (any Error).self) { try KeyFile.create(.secret, at: workshop.file("d"), replace: true) }
    #expect(try workshop.names() == ["d"])
  }

  @Test(arguments: [
    "000102ff", "0x000102FF\n", "# comment\n\n  00 01\t02 ff  \r\n", "00 01\n# between\n02 fF\n",
  ])
  func acceptsHexadecimalAsPeopleWriteIt(_ text: String) throws {
    let workshop = try Workshop()
    #expect(try KeyFile.read(try workshop.write("a.key", text), as: .secret) == KeyMaterial([0, 1, 2, 255]))
  }

  @Test(arguments: [
    ("", "is empty"), ("# only\n", "is empty"), ("00\n1", ", line 2 has an odd number of digits"),
    ("0g", ", line 1 is not hexadecimal"), ("00\n00\n-----BEGIN", ", line 3 is not hexadecimal"),
    (String(repeating: "00", count: 257), "is too long"), (String(repeating: " ", count: 8193), "is too long"),
  ])
  func refusesEverythingElse(_ text: String, _ problem: String) throws {
    let workshop = try Workshop()
    let path = try workshop.write("a.key", text)
    let error = #expect(throws: OperatorError.self) { try KeyFile.read(path, as: .secret) }
    #expect(error?.problem.replacing("secret file \(path)", with: "").trimmingPrefix(" ") ?? "" == problem)
  }

  @Test(arguments: [0o640, 0o604, 0o620, 0o660, 0o777, 0o601])
  func refusesWhatOthersCanUse(mode: Int) throws {
    let workshop = try Workshop()
    let path = try workshop.write("a.key", "00", mode: mode)
    let error = #expect(throws: OperatorError.self) { try KeyFile.read(path, as: .secret) }
    #expect(error?.description == "secret file \(path) can be used by others; chmod 600 \(path)")
  }

  @Test(.enabled(if: geteuid() == 0, "giving a file to another user needs root"))
  func refusesFilesOfOtherUsers() throws {
    let workshop = try Workshop()
    let path = try workshop.write("a.key", "00")
    try FileManager.default.setAttributes([.ownerAccountID: 12345], ofItemAtPath: path)
    let error = #expect(throws: OperatorError.self) { try KeyFile.read(path, as: .secret) }
    #expect(error?.description == "secret file \(path) belongs to user 12345; chown it to user 0, who runs this")
  }

  @Test func doesNotWaitForPipes() throws {
    let workshop = try Workshop()
    #expect(mkfifo(workshop.file("pipe"), 0o600) == 0)
    #expect(throws: OperatorError.self) { try KeyFile.read(workshop.file("pipe"), as: .secret) }
  }

  @Test func fingerprintsTellKeysApartAndAreNoKeys() throws {
    let a = KeyMaterial([UInt8](repeating: 7, count: 20))
    let b = KeyMaterial([UInt8](repeating: 7, count: 19) + [8])
    #expect(Fingerprint(a) == Fingerprint(KeyMaterial([UInt8](repeating: 7, count: 20))))
    #expect(Fingerprint(a) != Fingerprint(b))
    #expect(Fingerprint(a).description.count == 32 && !Fingerprint(a).description.contains("0707"))
    #expect(Fingerprint(text: Fingerprint(a).description) == Fingerprint(a))
    #expect(Fingerprint(text: "0123") == nil && Fingerprint(text: String(repeating: "g", count: 32)) == nil)
  }
}
