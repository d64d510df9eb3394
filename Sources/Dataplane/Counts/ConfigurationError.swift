/// What is wrong with a configuration, and where.
public struct ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The part of the configuration at fault.
  public enum Subject: Sendable, Equatable {
    case interface
    case peer(String)
    /// What belongs to the gateway as a whole.
    case gateway
    case firewall
    /// A rule of the firewall, by its number.
    case rule(Int)
  }
  public let subject: Subject
  /// The setting at fault, by its name in the `Configuration` types, for example "prefixes", "spi", "mtu".
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
    let place =
      switch subject {
      case .interface: "interface"
      case .peer(let name): "peer \(name.hasControlCharacters ? name.debugDescription : name)"
      case .gateway: "gateway"
      case .firewall: "firewall"
      case .rule(let number): "firewall rule \(number)"
      }
    return "\(place): \(setting): \(problem); \(remedy)"
  }
}

extension String {
  /// Line breaks and the like, which would spoil a line that shows the text.
  var hasControlCharacters: Bool { unicodeScalars.contains { $0.properties.generalCategory == .control } }
}
