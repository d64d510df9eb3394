/// Names of hosts, where addresses or names are wanted.
package enum HostName {
  /// What errors say where an address is wanted, before how to write one.
  package static let notLookedUp = "names are not looked up: "

  /// Whether it is one (RFC 1123 §2.1).
  package static func isValid(_ text: String) -> Bool {
    let labels = text.split(separator: ".", omittingEmptySubsequences: false)
    return (1...253).contains(text.utf8.count)
      && labels.allSatisfy { label in
        (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
          && label.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
              UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"):
              true
            default: false
            }
          }
      }
  }

  /// Whether a text that is no address names a host, with a port or without.
  package static func isMeant(_ text: String) -> Bool {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard let name = parts.first.map(String.init), parts.count == 1 || parts.count == 2 && UInt16(parts[1]) != nil
    else { return false }
    // What ends with digits is an address that somebody has misspelt.
    return isValid(name) && name.split(separator: ".").last?.contains(where: \.isLetter) == true
  }
}
