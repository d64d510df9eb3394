/// A scalar with the line it stands on.
package struct Located<Value> {
  /// What was read.
  package let value: Value
  /// From 1.
  package let line: Int

  /// A value that was found on a line.
  package init(value: Value, line: Int) {
    self.value = value
    self.line = line
  }
}

extension Located: Sendable where Value: Sendable {}

/// Reads one group of settings by name. What is missing reads as nil; what is wrong as well, and is reported.
package struct SettingReader {
  /// What the group belongs to, for problems: "peer beta".
  package let place: String
  /// Of the group.
  package let line: Int
  /// Where everything wrong is reported.
  package let problems: ProblemList
  private let entries: [String: Setting.Entry]
  /// Settings that are missing because of a mistake that was reported already.
  private let excused: Set<String>

  /// Reports every setting that is not among `known`.
  /// - Parameter renamed: settings that have another name now, by the one they had.
  package init(
    _ setting: Setting, line: Int, place: String, known: [String], renamed: [String: String] = [:],
    problems: ProblemList
  ) {
    self.place = place
    self.line = line
    self.problems = problems
    var entries: [String: Setting.Entry] = [:]
    var excused: Set<String> = []
    switch setting.value {
    case .table(let table):
      for entry in table {
        if known.contains(entry.name) {
          entries[entry.name] = entry
        } else if let name = renamed[entry.name] {
          problems.add(
            entry.line, SettingReader.join(place, "'\(entry.name)' has another name now"), "write '\(name)' instead")
          excused.insert(name)
        } else {
          problems.add(
            entry.line, SettingReader.join(place, "no setting is called '\(shortened(entry.name))'"),
            Spelling.remedy(for: entry.name, among: known))
          if let meant = Spelling.nearest(to: entry.name, among: known) { excused.insert(meant) }
        }
      }
    case .empty: break
    case .scalar, .list:
      problems.add(
        line, SettingReader.join(place, "\(setting.kind) stands where settings should"),
        "write 'name: value' lines; known are \(known.joined(separator: ", "))")
      excused = Set(known)
    }
    self.entries = entries
    self.excused = excused
  }

  /// Whether the setting is there, right or wrong.
  package func has(_ name: String) -> Bool { entries[name] != nil }

  /// The line of a setting, or of the group when it is missing.
  package func line(_ name: String) -> Int { entries[name]?.line ?? line }

  /// Reports what is wrong with a setting.
  package func add(_ name: String, _ problem: String, _ remedy: String, line: Int? = nil) {
    problems.add(line ?? self.line(name), SettingReader.join(place, "\(name): \(problem)"), remedy)
  }

  /// Reports a setting that has to be there.
  package func reportMissing(_ name: String, _ remedy: String) {
    guard !excused.contains(name) else { return }
    problems.add(line, SettingReader.join(place, "\(name) is missing"), remedy)
  }

  /// The setting itself, for readers of their own shape.
  package func setting(_ name: String) -> Setting.Entry? { entries[name] }

  /// A word or text.
  package func text(_ name: String, _ remedy: String) -> Located<String>? {
    guard let entry = entries[name] else { return nil }
    guard case .scalar(let text) = entry.setting.value, !text.isEmpty else {
      add(name, "\(entry.setting.kind) stands where a value should", remedy)
      return nil
    }
    return Located(value: text, line: entry.line)
  }

  /// A file's path; what is relative begins at `directory`.
  package func path(_ name: String, in directory: String) -> String? {
    text(name, "write a path").map { SettingReader.resolve($0.value, in: directory) }
  }

  /// A path as a settings file in `directory` means it.
  package static func resolve(_ path: String, in directory: String) -> String {
    path.hasPrefix("/") || directory == "." ? path : "\(directory == "/" ? "" : directory)/\(path)"
  }

  /// What `parse` makes of a text; nil from it is reported as a problem.
  /// - Parameter isAddress: where a host's name is a mistake of its own.
  package func value<T>(
    _ name: String, _ what: String, _ remedy: String, isAddress: Bool = false, _ parse: (String) -> T?
  ) -> Located<T>? {
    guard let text = text(name, remedy) else { return nil }
    guard let value = parse(text.value) else {
      reject(name, text.value, what, remedy, isAddress: isAddress)
      return nil
    }
    return Located(value: value, line: text.line)
  }

  private func reject(
    _ name: String, _ text: String, _ what: String, _ remedy: String, isAddress: Bool, line: Int? = nil
  ) {
    if isAddress, HostName.isMeant(text) {
      add(name, "'\(shortened(text))' is a host's name", HostName.notLookedUp + remedy, line: line)
    } else {
      add(name, "'\(shortened(text))' is not \(what)", remedy, line: line)
    }
  }

  /// True or false.
  package func flag(_ name: String) -> Bool? {
    value(name, "true or false", "write true or false") { text in
      switch text.lowercased() {
      case "true", "yes", "on": true
      case "false", "no", "off": false
      default: nil
      }
    }?.value
  }

  /// A whole number within a range.
  package func number(_ name: String, in range: ClosedRange<Int>, _ unit: String) -> Int? {
    let remedy = "write \(unit) from \(range.lowerBound) to \(range.upperBound)"
    guard let number = value(name, "a whole number", remedy, { Int($0) }) else { return nil }
    guard range.contains(number.value) else {
      add(name, "\(number.value) is out of range", remedy)
      return nil
    }
    return number.value
  }

  /// One of several words.
  package func choice<T: RawRepresentable<String>>(_ name: String, _ words: [T]) -> T? {
    let known = words.map(\.rawValue)
    guard let text = text(name, "known are \(known.joined(separator: ", "))") else { return nil }
    if let word = T(rawValue: text.value), known.contains(text.value) { return word }
    add(name, "'\(shortened(text.value))' is unknown", Spelling.remedy(for: text.value, among: known))
    return nil
  }

  /// A list of texts; a single one may stand without brackets.
  /// - Parameter isAddress: where a host's name is a mistake of its own.
  package func list<T>(
    _ name: String, _ what: String, _ remedy: String, isAddress: Bool = false, _ parse: (String) -> T?
  ) -> [Located<T>] {
    guard let entry = entries[name] else { return [] }
    let elements: [Setting]
    switch entry.setting.value {
    case .list(let list): elements = list
    case .scalar: elements = [entry.setting]
    case .empty: elements = []
    case .table:
      add(name, "settings stand where a list should", remedy)
      return []
    }
    return elements.compactMap { element in
      guard case .scalar(let text) = element.value else {
        add(name, "\(element.kind) is not \(what)", remedy, line: element.line)
        return nil
      }
      guard let value = parse(text) else {
        reject(name, text, what, remedy, isAddress: isAddress, line: element.line)
        return nil
      }
      return Located(value: value, line: element.line)
    }
  }

  /// A reader of the settings below a name.
  package func group(_ name: String, known: [String]) -> SettingReader? {
    guard let entry = entries[name] else { return nil }
    let place = SettingReader.join(self.place, name)
    return SettingReader(entry.setting, line: entry.line, place: place, known: known, problems: problems)
  }

  private static func join(_ place: String, _ rest: String) -> String { place.isEmpty ? rest : "\(place): \(rest)" }
}
