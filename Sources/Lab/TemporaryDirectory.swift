/// A directory for configuration and key files, gone with all that is in it when it is not needed any more.
public final class TemporaryDirectory: Sendable {
  public let path: String
  private let token: Cleanup.Token

  public init() throws {
    (path, token) = try Cleanup.making {
      try System.makeTemporaryDirectory("/tmp/\(Cleanup.ownPrefix)")
    } undo: { path in
      System.delete(path)
    }
  }

  deinit { remove() }

  /// Deletes it.
  public func remove() { if Cleanup.forget(token) { System.delete(path) } }

  /// Deletes directories whose process is gone.
  static func reclaimAbandoned() {
    // Anybody may make a directory with such a name; only in our own nobody else can move things about meanwhile.
    for name in System.names(in: "/tmp") where Cleanup.isAbandoned(name) && System.isOwnDirectory("/tmp/\(name)") {
      System.delete("/tmp/\(name)")
    }
  }

  /// Writes a file that only its owner can read; returns its path.
  @discardableResult public func write(_ name: String, _ text: String) throws -> String {
    try System.createFile("\(path)/\(name)", text)
    return "\(path)/\(name)"
  }
}
