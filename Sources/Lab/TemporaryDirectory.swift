/// A directory for configuration and key files, gone with all that is in it when it is not needed any more.
public final class TemporaryDirectory: Sendable {
  public let path: String
  private let token: Cleanup.Token

  public init() throws {
    (path, token) = try Cleanup.making {
      try System.makeTemporaryDirectory("/tmp/culvert-")
    } undo: { path in
      System.delete(path)
    }
  }

  deinit { remove() }

  /// Deletes it.
  public func remove() { if Cleanup.forget(token) { System.delete(path) } }

  /// Writes a file that only its owner can read; returns its path.
  @discardableResult public func write(_ name: String, _ text: String) throws -> String {
    try System.createFile("\(path)/\(name)", text)
    return "\(path)/\(name)"
  }
}
