extension Configuration {
  /// This gateway's own prefixes, and its pool.
  func validateGateway() throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .gateway, setting: setting, problem: problem, remedy: remedy)
    }
    guard localPrefixes.count <= AddressMessage.mostOffers else {
      throw problem(
        "localPrefixes", "there are \(localPrefixes.count)",
        "give \(AddressMessage.mostOffers) at most, shorter ones that cover several")
    }
    for (index, prefix) in localPrefixes.enumerated() {
      guard IntermediateSpace.isUsable(prefix) else {
        throw problem("localPrefixes", "hosts cannot have addresses of \(prefix)", "give the LAN's prefix")
      }
      if let other = localPrefixes[..<index].first(where: prefix.overlaps) {
        throw problem("localPrefixes", "\(prefix) overlaps \(other)", "give the shorter one only")
      }
    }
    for prefix in intermediatePool where !IntermediateSpace.isUsable(prefix) {
      throw problem("intermediatePool", "hosts cannot have addresses of \(prefix)", "choose private address space")
    }
  }

}

extension PeerConfiguration {
  /// The spaces that it demands; whether others have them, `Claims` knows.
  func validateSpaces(localPrefixes: [Prefix]) throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(
        subject: .peer(name), setting: "translation.\(setting)", problem: problem, remedy: remedy)
    }
    for (setting, pairs) in [("knownAs", translation.knownAs), ("theirs", translation.theirs)] {
      guard pairs.count <= PrefixTranslation.mostPairs else {
        throw problem(setting, "there are \(pairs.count)", "give \(PrefixTranslation.mostPairs) at most")
      }
      for (index, pair) in pairs.enumerated() {
        guard pair.isUsable else {
          throw problem(
            setting, "\(pair.real) cannot become \(pair.intermediate)", "give two prefixes of one IP version and length"
          )
        }
        guard IntermediateSpace.isUsable(pair.intermediate), IntermediateSpace.isUsable(pair.real) else {
          throw problem(
            setting, "hosts cannot have addresses of both \(pair.real) and \(pair.intermediate)", "choose others")
        }
        if let other = pairs[..<index].first(where: { $0.real == pair.real }) {
          throw problem(setting, "\(pair.real) is given twice", "remove one; the first is \(other.intermediate)")
        }
        if let own = localPrefixes.first(where: pair.intermediate.overlaps) {
          throw problem(setting, "\(pair.intermediate) overlaps \(own), which is this gateway's own", "choose another")
        }
      }
    }
    let intermediates = (translation.knownAs + translation.theirs).map(\.intermediate)
    for (index, prefix) in intermediates.enumerated() {
      if let other = intermediates[..<index].first(where: prefix.overlaps) {
        throw problem("theirs", "\(prefix) overlaps \(other)", "choose intermediate prefixes that do not")
      }
    }
    if let pair = translation.knownAs.first(where: {
      translation.mode == .automatic && !localPrefixes.contains($0.real)
    }) {
      throw problem(
        "knownAs", "\(pair.real) is not among this gateway's localPrefixes", "add it to them, or set the mode to fixed")
    }
    if let pair = translation.theirs.first(where: { pair in !prefixes.contains { $0.covers(pair.real) } }) {
      throw problem("theirs", "\(pair.real) is not among the peer's prefixes", "add it to them")
    }
  }
}
