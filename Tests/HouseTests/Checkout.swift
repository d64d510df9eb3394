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
  /// The lines without comments and without what stands in string literals.
  let code: [String]

  init(path: String, text: String) {
    self.path = path
    lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    code = lines.map(SourceFile.code)
  }

  /// A line without its comment and without what stands in its string literals. Interpolations that hold literals of
  /// their own are rare enough to do without.
  private static func code(_ line: Substring) -> String {
    var code: [UInt8] = []
    var inLiteral = false
    var escaped = false
    for byte in line.utf8 {
      if inLiteral {
        if escaped {
          escaped = false
        } else if byte == UInt8(ascii: "\\") {
          escaped = true
        } else if byte == UInt8(ascii: "\"") {
          inLiteral = false
        }
        continue
      }
      if byte == UInt8(ascii: "/"), code.last == byte {
        code.removeLast()
        break
      }
      inLiteral = byte == UInt8(ascii: "\"")
      code.append(byte)
    }
    return String(decoding: code, as: UTF8.self)
  }

  /// Modules that the file imports, in whatever form.
  var imports: [String] {
    let form =
      /^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?import\s+(?:(?:struct|class|enum|protocol|func|var|let|typealias|actor)\s+)?(\w+)/
    return code.filter { $0.contains("import") }.compactMap { line in line.firstMatch(of: form).map { String($0.1) } }
  }

  /// "PATH:LINE" of each line of code that one of `words` occurs in, not as part of a longer word.
  func places(_ words: String...) -> [String] {
    places(words, in: code)
  }

  /// The same, comments and literals included.
  func placesAnywhere(_ words: String...) -> [String] {
    places(words, in: lines.map(String.init))
  }

  private func places(_ words: [String], in lines: [String]) -> [String] {
    lines.enumerated().compactMap { number, line in
      let found = words.contains { word in
        line.ranges(of: word).contains { range in
          let before = range.lowerBound == line.startIndex ? " " : line[line.index(before: range.lowerBound)]
          let after = range.upperBound == line.endIndex ? " " : line[range.upperBound]
          return !before.isWord && !(after.isWord && line[range].last!.isWord)
        }
      }
      return found ? "\(path):\(number + 1)" : nil
    }
  }
}

extension Character {
  fileprivate var isWord: Bool { isLetter || isNumber || self == "_" }
}
