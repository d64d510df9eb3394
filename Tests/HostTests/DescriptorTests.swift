import Foundation
import PacketIO
import Testing

@testable import Host

/// Files are read to their ends, whatever they say of their sizes.
@Suite struct DescriptorTests {
  private let directory = NSTemporaryDirectory() + "culvert-host-\(UUID().uuidString)"

  init() throws { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true) }

  private func remove() { try? FileManager.default.removeItem(atPath: directory) }

  /// The kernel says 0 bytes of files that it makes up.
  @Test(arguments: ["/proc/self/status", "/proc/self/limits", "/proc/sys/kernel/ostype", "/proc/cpuinfo"])
  func filesWithoutASizeAreReadWhole(path: String) throws {
    defer { remove() }
    let file = try Descriptor(open: path, O_RDONLY)
    #expect(file.status.size == 0)
    let text = String(decoding: try file.readAll(limit: 1 << 20), as: UTF8.self)
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    #expect(text.split(separator: "\n").count == lines.count && text.hasSuffix("\n"))
    #expect(PosixFile.text(path, limit: 64)?.isEmpty == false)
  }

  @Test(arguments: [0, 1, 65_535, 65_536, 65_537, 200_000]) func plainFilesAreReadWhole(count: Int) throws {
    defer { remove() }
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    try PosixFile.writeAtomically(bytes, to: "\(directory)/a")
    #expect(try Descriptor(open: "\(directory)/a", O_RDONLY).readAll(limit: 1 << 20) == bytes)
    // One more than allowed says that there is more.
    let cut = try Descriptor(open: "\(directory)/a", O_RDONLY).readAll(limit: 70_000)
    #expect(cut == Array(bytes.prefix(70_001)))
  }

  @Test(arguments: [true, false]) func pipesAreReadToTheirEnd(blocks: Bool) async throws {
    defer { remove() }
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    if !blocks { try #require(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0) }
    let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 >> 3) }
    let writer = Thread { [write = ends[1]] in try? Descriptor(adopting: write).writeAll(bytes) }
    writer.start()
    #expect(try Descriptor(adopting: ends[0]).readAll(limit: 1 << 20) == bytes)
  }

  @Test func directoriesAreNoFiles() throws {
    defer { remove() }
    let error = #expect(throws: SystemError.self) { try Descriptor(open: directory, O_RDONLY).readAll(limit: 10) }
    #expect(error?.errno == EISDIR)
    #expect(PosixFile.text(directory) == nil && PosixFile.text("\(directory)/none") == nil)
  }

  @Test func namesAreSorted() throws {
    defer { remove() }
    for name in ["b", "a", "é", "c.sock"] { try PosixFile.writeAtomically([], to: "\(directory)/\(name)") }
    #expect(PosixFile.names(in: directory) == ["a", "b", "c.sock", "é"].sorted())
    #expect(PosixFile.names(in: "\(directory)/none") == [])
  }

  @Test func linesAreAppendedAndTheFirstFailureIsTold() throws {
    defer { remove() }
    let path = "\(directory)/lines"
    for text in ["one", "two"] {
      try LineFile(path: path) { Issue.record("\($0)") }.write(text, isDurable: true)
    }
    #expect(PosixFile.text(path) == "one\ntwo\n")
    let complaints = Complaints()
    let full = try LineFile(path: "/dev/full") { complaints.add($0) }
    full.write("lost")
    full.write("lost too")
    #expect(complaints.all.map(\.errno) == [ENOSPC])
    #expect(throws: SystemError.self) { try LineFile(path: directory) { _ in } }
  }
}

private final class Complaints: @unchecked Sendable {
  private let lock = NSLock()
  private var errors: [SystemError] = []
  var all: [SystemError] { lock.withLock { errors } }
  func add(_ error: SystemError) { lock.withLock { errors.append(error) } }
}
