import Foundation

/// The tree that these tests judge: the checkout they were built from.
enum Checkout {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  /// All Swift files below `folder`, sorted by path.
  static func swiftFiles(_ folder: String) throws -> [SourceFile] {
    let found = FileManager.default.enumerator(atPath: root.appending(path: folder).path)
    let paths = (found?.compactMap { $0 as? String } ?? []).filter { $0.hasSuffix(".swift") }.sorted()
    return try paths.map { SourceFile(path: "\(folder)/\($0)", text: try text("\(folder)/\($0)")) }
  }
}

/// A file as these line-based checks see it.
struct SourceFile {
  /// From the root of the checkout.
  let path: String
  let lines: [Substring]

  init(path: String, text: String) {
    self.path = path
    lines = text.split(separator: "\n", omittingEmptySubsequences: false)
  }

  /// The lines without comments and without what stands in string literals of one line.
  var code: [String] {
    lines.map { line in
      var code = String(line)
      // Interpolations that hold literals of their own are rare enough to do without.
      code.replace(/"(?:[^"\\]|\\.)*"/, with: "\"\"")
      if let comment = code.firstRange(of: "//") { code.removeSubrange(comment.lowerBound...) }
      return code
    }
  }

  /// Modules that the file imports, in whatever form.
  var imports: [String] {
    let form = /^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+(?:(?:struct|class|enum|protocol|func|var|let|typealias|actor)\s+)?(\w+)/
    return code.compactMap { line in line.firstMatch(of: form).map { String($0.1) } }
  }

  /// "PATH:LINE" of each line of code that `pattern` occurs in.
  func places(_ pattern: some RegexComponent) -> [String] {
    code.enumerated().compactMap { $1.firstMatch(of: pattern) == nil ? nil : "\(path):\($0 + 1)" }
  }
}
