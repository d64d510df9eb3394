import Glibc

/// Standard output and standard error, unbuffered.
public struct TextOutput: TextOutputStream, Sendable {
  private let descriptor: Int32
  public static let standardOutput = TextOutput(descriptor: 1)
  public static let standardError = TextOutput(descriptor: 2)

  public func write(_ text: String) { System.write(descriptor, text) }

  /// Whether a person is looking.
  public var isTerminal: Bool { isatty(descriptor) == 1 }
}
