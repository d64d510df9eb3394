import Glibc

/// A refusal of the kernel, with what to do about it: one line that an operator can act on.
public struct SystemError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What was attempted, for example "open /dev/net/tun".
  public let operation: String
  public let errno: Int32
  public let remedy: String?

  public init(_ operation: String, errno: Int32, remedy: String? = nil) {
    self.operation = operation
    self.errno = errno
    self.remedy = remedy
  }

  public var description: String {
    let reason = unsafe String(cString: strerror(errno))
    return "\(operation): \(reason)" + (remedy.map { "; \($0)" } ?? "")
  }
}
