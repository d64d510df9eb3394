/// An enumeration that goes into JSON under its names, which stay when cases are added between others.
protocol CodedByName: CaseIterable {
  /// In the style of configuration files, each case another.
  var name: String { get }
}

extension CodedByName {
  /// The case that was encoded.
  /// - Throws: `DecodingError` for a name that no case has.
  static func decoded(from decoder: any Decoder) throws -> Self {
    let name = try decoder.singleValueContainer().decode(String.self)
    guard let value = allCases.first(where: { $0.name == name }) else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(codingPath: decoder.codingPath, debugDescription: "there is no \(Self.self) '\(name)'"))
    }
    return value
  }

  func encodeName(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(name)
  }
}
