/// Something a transport noticed along a path. Events repeat freely: the same one, again and again, is counted.
public struct TransportEvent: Sendable, Equatable {
  /// What happened there. Errors are positive errno values.
  public enum Kind: Sendable, Equatable {
    /// What this side has opened there is open, and the other side cannot know yet whose it is.
    case opened
    /// Something could not be sent there, or nothing could be opened.
    case failed(Int32)
    /// What was open there is not any more, though this side did not close it.
    case ended(Int32)
  }

  public let path: Path
  public let kind: Kind
  /// How often in a row.
  public internal(set) var count = 1

  public init(_ kind: Kind, _ path: Path) {
    self.kind = kind
    self.path = path
  }

  /// The errno, where there is one.
  public var error: Int32? {
    switch kind {
    case .opened: nil
    case .failed(let error), .ended(let error): error
    }
  }
}
