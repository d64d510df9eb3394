import Dataplane

/// The text form of prefixes: what is accepted prints as something that reads back as the same value.
let prefixText = FuzzTarget(name: "PrefixText") { input in
  let text = text(input)
  guard let prefix = Prefix(text) else { return }
  require(text.utf8.allSatisfy(isAddressText), "'\(text)' is taken for a prefix")
  require(Prefix(prefix.description) == prefix, "'\(text)' prints as \(prefix), which is another prefix")
  require(prefix.contains(prefix.address), "\(prefix) does not contain its own address")
  require(Prefix(prefix.address, length: prefix.length) == prefix, "\(prefix) has bits behind its length")
}
