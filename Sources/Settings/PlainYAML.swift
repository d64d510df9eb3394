import Yams

/// YAML without anchors and aliases, whatever the text says.
///
/// The YAML library puts in what an alias stands for before it hands anything over, so that a few nested anchors become
/// gigabytes. Here every '&' that could begin an anchor is exchanged for a character that the text does not have, and
/// that begins plain words: inside quotes, comments and words it is put back afterwards, and a word that begins with it
/// was an anchor. An alias without its anchor is an error of the library's.
struct PlainYAML {
  /// What the YAML library is given; each character stands where it stood.
  let text: String
  /// What stands for '&'; nil: the text has no anchor.
  private let stand: Unicode.Scalar?
  private let anchorLines: Set<Int>

  init(_ text: String) {
    var taken: Set<Unicode.Scalar> = []
    var lines: Set<Int> = []
    PlainYAML.visit(text) { scalar, beginsAnchor, line in
      if beginsAnchor { lines.insert(line) }
      if PlainYAML.stands.contains(scalar) { taken.insert(scalar) }
    }
    anchorLines = lines
    let free = PlainYAML.stands.first { !taken.contains($0) } ?? PlainYAML.stands[0]
    stand = lines.isEmpty ? nil : free
    if lines.isEmpty {
      self.text = text
    } else {
      var exchanged = String.UnicodeScalarView()
      PlainYAML.visit(text) { scalar, beginsAnchor, _ in exchanged.append(beginsAnchor ? free : scalar) }
      self.text = String(exchanged)
    }
  }

  /// Private use, which no keyboard has.
  private static let stands = (0..<64).compactMap { Unicode.Scalar(0xE000 + UInt32($0)) }

  /// Tells each character, whether it could begin an anchor, and its line, from 1.
  private static func visit(_ text: String, _ body: (Unicode.Scalar, Bool, Int) -> Void) {
    var line = 1
    var before: Unicode.Scalar = "\n"
    for scalar in text.unicodeScalars {
      // A token follows white space, a bracket, a comma, or in brackets a colon, a question mark or a closing quote.
      let begins =
        scalar == "&" && (before.properties.isWhitespace || "\u{FEFF}[]{},:?-\"'".unicodeScalars.contains(before))
      body(scalar, begins, line)
      if scalar == "\n" ? before != "\r" : ["\r", "\u{85}", "\u{2028}", "\u{2029}"].contains(scalar) { line += 1 }
      before = scalar
    }
  }

  /// A scalar's text as it was written.
  /// - Throws: `FileProblem` where an anchor stands before it.
  func content(of scalar: String, isPlain: Bool, line: Int, file: String) throws(FileProblem) -> String {
    guard let stand, scalar.unicodeScalars.contains(stand) else { return scalar }
    if isPlain, scalar.unicodeScalars.first == stand { throw PlainYAML.refusal(line: line, file: file) }
    return String(String.UnicodeScalarView(scalar.unicodeScalars.map { $0 == stand ? "&" : $0 }))
  }

  /// Says that anchors are the matter where they are: what follows one fits nowhere once it is a word.
  func anchorProblem(of error: any Error, file: String) -> FileProblem? {
    switch error as? YamlError {
    case .composer(_, let problem, let mark, _) where problem.contains("alias"):
      PlainYAML.refusal(line: mark.line, file: file)
    case .scanner(_, _, let mark, _) where anchorLines.contains(mark.line),
      .parser(_, _, let mark, _) where anchorLines.contains(mark.line):
      PlainYAML.refusal(line: mark.line, file: file)
    default: nil
    }
  }

  static func refusal(line: Int, file: String) -> FileProblem {
    FileProblem(
      file: file, line: line, problem: "anchors and aliases ('&' and '*') are not supported",
      remedy: "write the value again, or put text that begins so into quotes")
  }
}
