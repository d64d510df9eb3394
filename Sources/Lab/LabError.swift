public import Glibc

/// Why the lab could not do something: one line with cause and, where there is one, the remedy.
public struct LabError: Error, Sendable, Equatable, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }

  /// A refusal of the kernel.
  /// - Parameter code: an errno.
  public static func system(_ operation: String, _ code: Int32 = errno, remedy: String? = nil) -> LabError {
    LabError("\(operation): \(System.words(code))" + (remedy.map { "; \($0)" } ?? ""))
  }
}
