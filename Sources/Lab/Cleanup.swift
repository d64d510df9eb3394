import Glibc
import Synchronization

/// What must be undone before this process may end: processes to end, namespaces to delete.
///
/// Whoever makes such a thing registers its undoing in the same step, so that there is no moment at which a
/// signal could leave it behind. Undoing goes backwards, the last thing first.
public enum Cleanup {
  public struct Token: Sendable { fileprivate let number: Int }

  private struct Entry {
    let number: Int
    let undo: @Sendable () -> Void
  }
  private struct State {
    var entries: [Entry] = []
    var next = 0
    var isClosed = false
  }
  private static let state = Mutex(State())

  /// Makes something and registers how to undo it, as one step that cleaning up cannot interrupt.
  /// - Parameter undo: gets what `make` returned. It runs on another thread, possibly while `make`'s result is in use.
  static func making<Made: Sendable>(
    _ make: () throws -> Made, undo: @escaping @Sendable (Made) -> Void
  ) throws -> (Made, Token) {
    try state.withLock { state throws -> (Made, Token) in
      if state.isClosed { throw LabError("interrupted") }
      let made = try make()
      state.next += 1
      state.entries.append(Entry(number: state.next, undo: { undo(made) }))
      return (made, Token(number: state.next))
    }
  }

  /// Forgets an undoing without running it, because it was done otherwise. False: somebody else runs it already.
  @discardableResult static func forget(_ token: Token) -> Bool {
    state.withLock { state in
      guard let index = state.entries.lastIndex(where: { $0.number == token.number }) else { return false }
      state.entries.remove(at: index)
      return true
    }
  }

  /// Undoes all that is registered. Afterwards nothing new can be made.
  public static func runAll() {
    while true {
      let entry = state.withLock { state -> Entry? in
        state.isClosed = true
        return state.entries.popLast()
      }
      guard let entry else { return }
      entry.undo()
    }
  }

  /// With what the names of all that this process makes begin.
  static let ownPrefix = "\(prefix)\(getpid())-"
  private static let prefix = "culvert-"

  /// Whether a name is that of a thing whose maker is gone.
  static func isAbandoned(_ name: String) -> Bool {
    guard name.hasPrefix(prefix), name.dropFirst(prefix.count).contains("-"),
      let owner = Int32(name.dropFirst(prefix.count).prefix { $0 != "-" }), owner > 0
    else { return false }
    return kill(owner, 0) != 0 && errno == ESRCH
  }

  /// Deletes what processes that were killed outright have left.
  public static func reclaimAbandoned() {
    Namespace.reclaimAbandoned()
    TemporaryDirectory.reclaimAbandoned()
  }

  /// Whether cleaning up has begun: errors from now on are its consequences and not worth a word.
  public static var hasBegun: Bool { state.withLock { $0.isClosed } }

  /// From now on SIGINT, SIGTERM and SIGHUP clean up and then end the process with status 128 + the signal's number.
  /// For programs, once, at their start.
  public static func onSignals() throws {
    let (reader, writer) = try System.pipe()
    signalPipe.store(writer, ordering: .releasing)
    let code = startThread(name: "signals") {
      var number: UInt8 = 0
      while unsafe read(reader, &number, 1) != 1 {}
      runAll()
      _exit(128 + Int32(number))
    }
    if code != 0 { throw LabError.system("start a thread", code) }
    for number in [SIGINT, SIGTERM, SIGHUP] {
      var action = sigaction()
      unsafe action.__sigaction_handler.sa_handler = { number in
        // Only what is safe inside a signal handler: the rest happens on the thread above.
        var byte = UInt8(truncatingIfNeeded: number)
        unsafe _ = write(signalPipe.load(ordering: .relaxed), &byte, 1)
      }
      action.sa_flags = SA_RESTART
      unsafe sigaction(number, &action, nil)
    }
  }
}

private let signalPipe = Atomic<Int32>(-1)
