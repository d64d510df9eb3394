import Foundation
import Glibc
import PacketIO
import Testing

@testable import Host

/// What a service manager is told.
struct ServiceManagerTests {
  /// A service manager's socket.
  private final class Manager {
    let directory = FileManager.default.temporaryDirectory.appending(path: "culvert-notify-\(UUID().uuidString)")
    var path: String { directory.appending(path: "notify").path }
    private let socket: Int32

    init() throws {
      try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
      socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      let place = directory.appending(path: "notify").path
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(place.utf8)) }
      let bound = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      try #require(bound == 0)
    }

    deinit {
      close(socket)
      try? FileManager.default.removeItem(at: directory)
    }

    func next() -> String? {
      var bytes = [UInt8](repeating: 0, count: 512)
      let count = recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
      return count < 0 ? nil : String(decoding: bytes.prefix(count), as: UTF8.self)
    }
  }

  private static func service(_ variables: [String: String]) -> ServiceManager {
    ServiceManager(environment: { variables[$0] }, process: 77)
  }

  @Test func isToldWhatHappens() throws {
    let manager = try Manager()
    let service = Self.service(["NOTIFY_SOCKET": manager.path])
    service.tell(.ready)
    service.tell(.reloading)
    service.tell(.stopping)
    #expect(manager.next() == "READY=1")
    let reloading = try #require(manager.next()).split(separator: "\n")
    #expect(reloading.count == 2 && reloading[0] == "RELOADING=1")
    #expect(reloading[1].hasPrefix("MONOTONIC_USEC=") && UInt64(reloading[1].dropFirst(15)) != nil)
    #expect(manager.next() == "STOPPING=1")
    #expect(manager.next() == nil)
  }

  @Test func nobodyWhoAskedIsNoError() {
    Self.service([:]).tell(.ready)
    Self.service(["NOTIFY_SOCKET": "/nonexistent/notify"]).tell(.ready)
    Self.service(["NOTIFY_SOCKET": String(repeating: "/x", count: 100)]).tell(.ready)
    Self.service(["NOTIFY_SOCKET": "@"]).tell(.ready)
  }

  @Test func aWatchdogIsThisProcess() {
    let base = ["NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"]
    #expect(Self.service(base).watchdogInterval == 15)
    #expect(Self.service(base.merging(["WATCHDOG_PID": "77"]) { $1 }).watchdogInterval == 15)
    #expect(Self.service(base.merging(["WATCHDOG_PID": "78"]) { $1 }).watchdogInterval == nil)
    #expect(Self.service(base.merging(["WATCHDOG_USEC": "0"]) { $1 }).watchdogInterval == nil)
    #expect(Self.service(base.merging(["WATCHDOG_USEC": "-1"]) { $1 }).watchdogInterval == nil)
    #expect(Self.service(["WATCHDOG_USEC": "30000000"]).watchdogInterval == nil)
  }

  @Test func aVersionHasANumber() {
    #expect(Version.number.split(separator: ".").count == 3)
    #expect(Version.text.hasPrefix(Version.number))
  }
}
