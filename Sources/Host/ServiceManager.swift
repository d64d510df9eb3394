import Glibc
import PacketIO

/// Tells systemd, or whatever has started this program and speaks as it does, how it is (sd_notify(3)). Nothing happens
/// where nobody has asked to be told.
package struct ServiceManager: Sendable {
  package enum State: String, Sendable {
    case ready = "READY=1"
    case reloading = "RELOADING=1"
    case stopping = "STOPPING=1"
    case alive = "WATCHDOG=1"
  }

  /// Of this process.
  package static let own = ServiceManager(environment: PosixFile.environment, process: getpid())

  private let path: String?
  /// Seconds between two `alive`, half of what is demanded; nil: nobody waits for it.
  package let watchdogInterval: Double?

  /// - Parameters:
  ///   - environment: the value of a variable; `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are asked for.
  ///   - process: whose watchdog it may be.
  package init(environment: (String) -> String?, process: Int32) {
    path = environment("NOTIFY_SOCKET").flatMap { $0.isEmpty ? nil : $0 }
    let isMeant = environment("WATCHDOG_PID").map { Int32($0) == process } ?? true
    let microseconds = environment("WATCHDOG_USEC").flatMap { UInt64($0) } ?? 0
    watchdogInterval = path != nil && isMeant && microseconds > 0 ? Double(microseconds) / 2e6 : nil
  }

  /// Not being heard is no error: the service manager has its own time limits.
  package func tell(_ state: State) {
    guard let path else { return }
    var text = state.rawValue
    if state == .reloading { text += "\nMONOTONIC_USEC=\(MonotonicTime.current().nanoseconds / 1000)" }
    try? UnixSocket.sendDatagram(Array(text.utf8), to: path)
  }
}
