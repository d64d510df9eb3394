import CVersion

/// Which Culvert this is.
package enum Version {
  /// Semver: what is public, settings and JSON included, keeps its meaning within a major number.
  package static let number = "0.1.0"

  /// The number, and of which commit, if the build knew: "0.1.0 (2820646b1f3c)".
  package static var text: String {
    let commit = culvert_commit()
    guard commit != 0 else { return number }
    let digits = String(commit, radix: 16)
    return "\(number) (\(String(repeating: "0", count: max(12 - digits.count, 0)))\(digits))"
  }
}
