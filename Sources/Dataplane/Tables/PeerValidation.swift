import PacketIO

extension PeerConfiguration {
  func validateMTU() throws(ConfigurationError) {
    guard let mtu, !(576...PathMTU.largest).contains(mtu) else { return }
    throw ConfigurationError(
      subject: .peer(name), setting: "mtu", problem: "is \(mtu) bytes", remedy: "choose 576 to 65535, or leave it out")
  }

  func validateAccess() throws(ConfigurationError) {
    guard let access else { return }
    func problem(_ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .peer(name), setting: "access", problem: problem, remedy: remedy)
    }
    guard access.count <= FirewallConfiguration.maximumRules / 2 else {
      throw problem(
        "has \(access.count) entries", "\(FirewallConfiguration.maximumRules / 2) is the limit; join some by prefix")
    }
    for entry in access where entry.ports != nil && entry.protocol != .any && !entry.protocol.hasPorts {
      throw problem("\(entry.hosts): the protocol has no ports", "remove them, or choose tcp or udp")
    }
  }
}
