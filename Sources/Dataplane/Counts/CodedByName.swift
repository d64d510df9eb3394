/// An enumeration that goes into JSON under its names, which stay when cases are added between others.
public protocol CodedByName: Codable, CaseIterable {
  /// In the style of configuration files, each case another.
  var name: String { get }
}

extension CodedByName {
  /// - Throws: `DecodingError` for a name that no case has.
  public init(from decoder: any Decoder) throws {
    let name = try decoder.singleValueContainer().decode(String.self)
    guard let value = Self.allCases.first(where: { $0.name == name }) else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "there is no \(Self.self) '\(name)'"))
    }
    self = value
  }

  /// The name, as a string.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(name)
  }
}
