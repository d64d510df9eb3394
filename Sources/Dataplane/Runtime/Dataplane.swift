public import PacketIO

/// The tunnel, as an embedder sees it.
public final class Dataplane: Sendable {
  /// How to run, beside what to carry.
  public struct Options: Sendable {
    /// Packet buffers of a worker, each `BufferPool.bufferSize` bytes of address space; touched ones count.
    public var buffers = 192
    /// Which library seals and opens; nil: the fastest that the CPU and the build have.
    public var engine: CipherEngine?
    /// Kernel features to use; narrowed by tests.
    public var ringFeatures: RingFeatures = .all
    public init() {}
  }

  /// Validates everything, opens the device and the transports, and starts to carry packets.
  /// - Throws: `ConfigurationError`, `SystemError`.
  public init(_ configuration: Configuration, transports: [any Transport], options: Options = Options()) async throws {
    fatalError()
  }

  /// Puts another configuration in force, atomically, while traffic flows. On an error nothing changes.
  public func apply(_ configuration: Configuration) async throws { fatalError() }

  /// State changes and errors, for one reader at a time; ends after `stop`.
  public var events: EventStream { fatalError() }

  /// All counters, as of one moment between two of the worker's turns.
  public func statistics() async -> Statistics { fatalError() }

  /// Ends the traffic, closes device and transports, zeroes the keys.
  public func stop() async { fatalError() }
}

/// Which library seals and opens packets.
public enum CipherEngine: String, Sendable, CaseIterable, Codable {
  /// Intel's multi-buffer IPsec library (x86-64).
  case multiBuffer = "multi-buffer"
  case openSSL = "openssl"

  /// Those that this build and CPU can use, the fastest first.
  public static var available: [CipherEngine] { fatalError() }
}

/// What is wrong with a configuration, and where.
public struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The part of the configuration at fault.
  public enum Subject: Sendable, Equatable {
    case interface
    case peer(String)
  }
  public let subject: Subject
  /// The setting at fault, by its name in `Configuration` types, e.g. "prefixes", "spi", "mtu".
  public let setting: String
  public let problem: String
  public let remedy: String

  public init(subject: Subject, setting: String, problem: String, remedy: String) {
    self.subject = subject
    self.setting = setting
    self.problem = problem
    self.remedy = remedy
  }

  public var description: String {
    let place = switch subject {
    case .interface: "interface"
    case .peer(let name): "peer \(name)"
    }
    return "\(place): \(setting): \(problem); \(remedy)"
  }
}

/// Events in order, as an `AsyncSequence`.
public struct EventStream: AsyncSequence, Sendable {
  public typealias Element = Event
  public struct Iterator: AsyncIteratorProtocol {
    public mutating func next() async -> Event? { fatalError() }
  }
  public func makeAsyncIterator() -> Iterator { Iterator() }
}
