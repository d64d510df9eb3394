/// Finds what somebody meant who wrote something else.
package enum Spelling {
  /// The known word nearest to `word`; nil when none is near enough to be meant.
  package static func nearest(to word: String, among known: [String]) -> String? {
    // A third of the letters, at least one: "adress" is "address", "port" is not "mtu".
    let tolerance = max(1, word.count / 3)
    let ranked = known.map { (distance(Array(word.lowercased()), Array($0)), $0) }
    guard let best = ranked.min(by: { $0.0 < $1.0 }), best.0 <= tolerance else { return nil }
    return best.1
  }

  /// "did you mean 'x'?" or, when nothing is near, a list of all there is.
  package static func remedy(for word: String, among known: [String]) -> String {
    if let nearest = nearest(to: word, among: known) { return "did you mean '\(nearest)'?" }
    return "known are \(known.joined(separator: ", "))"
  }

  /// Insertions, deletions, replacements and swaps of neighbours that lead from one to the other.
  package static func distance(_ a: [Character], _ b: [Character]) -> Int {
    // Long words are never near each other, and quadratic time is not for input.
    guard a.count <= 64, b.count <= 64 else { return a == b ? 0 : max(a.count, b.count) }
    var rows = [Array(0...b.count)]
    for i in 1..<(a.count + 1) {
      var row = [i]
      for j in 1..<(b.count + 1) {
        var best = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
        if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { best = min(best, rows[i - 2][j - 2] + 1) }
        row.append(best)
      }
      rows.append(row)
    }
    return rows[a.count][b.count]
  }
}
