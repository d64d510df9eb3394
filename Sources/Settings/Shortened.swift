/// So much of a text that a line with it stays readable, without anything that would disturb a terminal.
package func shortened(_ text: String) -> String {
  let clean = text.unicodeScalars.prefix(48).map { $0.properties.generalCategory == .control ? "\u{FFFD}" : $0 }
  var result = String(String.UnicodeScalarView(clean))
  if text.unicodeScalars.count > 48 { result += "…" }
  return result
}
