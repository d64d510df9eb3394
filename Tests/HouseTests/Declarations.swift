import Foundation

/// Types and their places, read off the sources as text: what is declared at the left margin, or in an extension there.
struct Declarations {
  struct TypeSize: Equatable {
    var lines = 0
    /// Stored properties of the type itself; what it nests is indented further and not counted.
    var stored = 0
    var files: Set<String> = []
  }

  /// By the outermost type's name.
  private(set) var sizes: [String: TypeSize] = [:]
  /// The folder in which each type is declared, where only one declares such a name.
  private(set) var folders: [String: String] = [:]

  private static let modifiers =
    "(?:(?:public|package|internal|fileprivate|private|final|nonisolated|indirect|@\\w+(?:\\([^)]*\\))?)\\s+)*"

  init(_ files: [SourceFile], below target: String) {
    let head = try! Regex(
      "^" + Self.modifiers + "(struct|class|enum|actor|protocol|extension)\\s+([A-Za-z_]\\w*)",
      as: (Substring, Substring, Substring).self)
    let property = try! Regex(
      "^  (?:(?:public|package|internal|fileprivate|private|private\\(set\\)|package private\\(set\\)|public private\\(set\\)|"
        + "package internal\\(set\\)|internal\\(set\\)|unowned|weak|nonisolated\\(unsafe\\))\\s+)*(?:var|let)\\s+\\w+")
    var ambiguous: Set<String> = []
    for file in files {
      let folder = Self.folder(of: file.path, below: target)
      var current: String?
      var isExtension = false
      for line in file.code {
        if current == nil, let match = line.firstMatch(of: head) {
          let name = String(match.2)
          isExtension = match.1 == "extension"
          if !isExtension {
            if let other = folders[name], other != folder { ambiguous.insert(name) }
            folders[name] = folder
          }
          sizes[name, default: TypeSize()].lines += 1
          sizes[name]!.files.insert(file.path)
          current = line.hasSuffix("}") ? nil : name
          continue
        }
        guard let name = current else { continue }
        sizes[name]!.lines += 1
        let isComputed = line.hasSuffix("{") && !line.contains("=")
        if !isExtension, !isComputed, line.firstMatch(of: property) != nil, !Self.isOneLineGetter(line) {
          sizes[name]!.stored += 1
        }
        if line.hasPrefix("}") { current = nil }
      }
    }
    for name in ambiguous { folders[name] = nil }
  }

  /// `var x: Int { y }`
  private static func isOneLineGetter(_ line: String) -> Bool {
    line.hasSuffix("}") && !line.contains("didSet") && !line.contains("= {") && line.contains(" { ")
      && !line.prefix { $0 != "{" }.contains("=")
  }

  /// The first folder below the target's; "." for files that lie in none.
  static func folder(of path: String, below target: String) -> String {
    let rest = path.dropFirst(target.count + 1).split(separator: "/")
    return rest.count > 1 ? String(rest[0]) : "."
  }

  /// Folders that name each other's types, directly or round about: each circle as its sorted folders.
  static func circles(_ files: [SourceFile], below target: String) -> [[String]] {
    let declarations = Declarations(files, below: target)
    var uses: [String: Set<String>] = [:]
    for file in files {
      let from = folder(of: file.path, below: target)
      for line in file.code {
        for word in line.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "_" }) {
          guard let to = declarations.folders[String(word)], to != from else { continue }
          uses[from, default: []].insert(to)
        }
      }
    }
    func reach(_ start: String) -> Set<String> {
      var seen: Set<String> = []
      var next = Array(uses[start] ?? [])
      while let folder = next.popLast() {
        if seen.insert(folder).inserted { next += uses[folder] ?? [] }
      }
      return seen
    }
    let reachable = Dictionary(uniqueKeysWithValues: uses.keys.map { ($0, reach($0)) })
    let circles = uses.keys.compactMap { folder -> [String]? in
      guard reachable[folder]!.contains(folder) else { return nil }
      return reachable[folder]!.filter { reachable[$0]?.contains(folder) == true }.sorted()
    }
    return Set(circles).sorted { $0[0] < $1[0] }
  }
}
