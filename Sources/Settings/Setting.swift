import Yams

/// A setting of a configuration file, with the line it stands on: YAML reduced to what such files need.
package struct Setting: Sendable {
  /// What stands behind a name, or is an element of a list.
  package enum Value: Sendable {
    /// A word, a number, or a text in quotes.
    case scalar(String)
    case list([Setting])
    case table([Entry])
    /// Nothing behind the colon.
    case empty
  }

  /// A name of a table, and what stands behind it.
  package struct Entry: Sendable {
    /// As it is written.
    package let name: String
    /// Of the name; that of the setting's value may be a later one.
    package let line: Int
    /// What the name stands for.
    package let setting: Setting
  }

  /// From 1.
  package let line: Int
  /// What stands there.
  package let value: Value

  /// "a list", for problems.
  package var kind: String {
    switch value {
    case .scalar(let text): "'\(shortened(text))'"
    case .list: "a list"
    case .table: "a group of settings"
    case .empty: "nothing"
    }
  }
}

extension Setting {
  /// Bytes of the largest file that is read.
  package static let largestFile = 16 << 20
  /// Levels of nesting; no setting needs more than four.
  private static let deepest = 16

  /// Reads the text of a file that stands, or would stand, at `file`.
  /// - Parameters:
  ///   - file: the name that problems are reported under.
  ///   - firstSetting: what a file without settings needs first, for the remedy.
  /// - Throws: `FileProblem` for text that is not YAML or not of the shape above.
  package init(
    parsing text: String, file: String, firstSetting: String = "write 'name: value' lines"
  ) throws(FileProblem) {
    // Editors of other systems put a mark of byte order in front.
    let plain = PlainYAML(text.first == "\u{FEFF}" ? String(text.dropFirst()) : text)
    let root: Node?
    do {
      root = try Yams.compose(yaml: plain.text)
    } catch {
      throw plain.anchorProblem(of: error, file: file) ?? Setting.problem(error, text: plain.text, file: file)
    }
    guard let root else { throw FileProblem(file: file, problem: "the file holds no settings", remedy: firstSetting) }
    try self.init(root, line: 1, depth: 0, plain: plain, file: file)
  }

  private init(
    _ node: Node, line outer: Int, depth: Int, plain: PlainYAML, file: String
  ) throws(FileProblem) {
    line = node.mark?.line ?? outer
    guard depth < Setting.deepest else {
      throw FileProblem(file: file, line: line, problem: "settings are nested too deeply", remedy: "remove brackets")
    }
    switch node {
    case .scalar(let scalar):
      let isPlain = scalar.style == .plain || scalar.style == .any
      let text = try plain.content(of: scalar.string, isPlain: isPlain, line: line, file: file)
      let isNothing = isPlain && ["", "~", "null"].contains(text)
      value = isNothing ? .empty : .scalar(text)
    case .sequence(let sequence):
      var list: [Setting] = []
      for element in sequence {
        list.append(try Setting(element, line: line, depth: depth + 1, plain: plain, file: file))
      }
      value = .list(list)
    case .mapping(let mapping):
      var entries: [Entry] = []
      for (key, element) in mapping {
        let keyLine = key.mark?.line ?? line
        guard case .scalar(let name) = key else {
          throw FileProblem(
            file: file, line: keyLine, problem: "a list or group stands where a name should",
            remedy: "write 'name: value'; text with brackets or braces needs quotes")
        }
        let isPlain = name.style == .plain || name.style == .any
        let text = try plain.content(of: name.string, isPlain: isPlain, line: keyLine, file: file)
        let setting = try Setting(element, line: keyLine, depth: depth + 1, plain: plain, file: file)
        entries.append(Entry(name: text, line: keyLine, setting: setting))
      }
      value = .table(entries)
    case .alias: throw PlainYAML.refusal(line: line, file: file)
    }
  }

  private static func problem(_ error: any Error, text: String, file: String) -> FileProblem {
    let remedy = "check the colons, quotes and indentation (spaces, not tabs) here and on the line above"
    switch error as? YamlError {
    case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
      .composer(_, let problem, let mark, _):
      return FileProblem(file: file, line: mark.line, problem: "not valid YAML: \(problem)", remedy: remedy)
    case .duplicatedKeysInMapping(let duplicates, let context):
      let name = duplicates.first ?? ""
      let lines = repeated(name, at: context.mark, in: text)
      return FileProblem(
        file: file, line: lines.second ?? lines.first,
        problem: "'\(shortened(name))' is given twice\(lines.second == nil ? "" : ", first on line \(lines.first)")",
        remedy: "remove one of them")
    case .reader:
      return FileProblem(
        file: file, line: lineOfFirstControlCharacter(text), problem: "holds a control character",
        remedy: "save the file as plain UTF-8 text")
    default:
      return FileProblem(file: file, problem: "not valid YAML", remedy: remedy)
    }
  }

  /// The YAML library tells where a repeated name stands first. The next line that has the same name in the same
  /// column, before any line that is indented less, is the second.
  private static func repeated(_ name: String, at mark: Mark, in text: String) -> (first: Int, second: Int?) {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let indent = mark.column - 1
    for (index, line) in lines.enumerated().dropFirst(max(mark.line, 0)) {
      let content = line.drop { $0 == " " || $0 == "-" }
      if content.isEmpty || content.first == "#" { continue }
      let column = line.count - content.count
      if column < indent { break }
      if column == indent, content.hasPrefix(name), content.dropFirst(name.count).first == ":" {
        return (mark.line, index + 1)
      }
    }
    return (mark.line, nil)
  }

  private static func lineOfFirstControlCharacter(_ text: String) -> Int? {
    var line = 1
    for scalar in text.unicodeScalars {
      if scalar == "\n" { line += 1 }
      let isControl = scalar.properties.generalCategory == .control && !["\n", "\r", "\t"].contains(scalar)
      if isControl || scalar == "\u{FEFF}" || scalar.value & 0xFFFE == 0xFFFE { return line }
    }
    return nil
  }
}
