import PacketIO

extension FirewallConfiguration {
  /// Throws the first problem found.
  ///
  /// - Parameter running: the configuration in force, for what may not change while a dataplane runs.
  func validate(running: FirewallConfiguration?) throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .firewall, setting: setting, problem: problem, remedy: remedy)
    }
    guard (1...8_388_608).contains(flowCapacity) else {
      throw problem("flowCapacity", "\(flowCapacity) is out of range", "choose 1 to 8388608 flows")
    }
    guard (1...4_194_304).contains(pendingCapacity) else {
      throw problem("pendingCapacity", "\(pendingCapacity) is out of range", "choose 1 to 4194304 flows")
    }
    if let running {
      guard flowCapacity == running.flowCapacity else {
        throw problem("flowCapacity", "cannot change while the dataplane runs", "stop it and start it anew")
      }
      guard pendingCapacity == running.pendingCapacity else {
        throw problem("pendingCapacity", "cannot change while the dataplane runs", "stop it and start it anew")
      }
    }
    try timeouts.validate()
    guard rules.count <= FirewallConfiguration.maximumRules else {
      throw problem(
        "rules", "there are \(rules.count)", "\(FirewallConfiguration.maximumRules) is the limit; join some by prefix")
    }
    var names: [Int: String] = [:]
    for rule in rules {
      try rule.validate()
      if let other = names.updateValue(rule.name, forKey: rule.number) {
        throw ConfigurationError(
          subject: .rule(rule.number), setting: "number",
          problem: "is used by two rules, '\(other)' and '\(rule.name)'", remedy: "give each rule a number of its own")
      }
    }
  }
}

extension FirewallRule {
  func validate() throws(ConfigurationError) {
    func problem(_ setting: String, _ problem: String, _ remedy: String) -> ConfigurationError {
      ConfigurationError(subject: .rule(number), setting: setting, problem: problem, remedy: remedy)
    }
    guard number >= 1 else { throw problem("number", "is \(number)", "choose 1 or greater") }
    if let source, let destination, source.address.family != destination.address.family {
      throw problem(
        "destination", "\(destination) is of another IP version than the source \(source)",
        "make one rule for each version")
    }
    if sourcePorts != nil || destinationPorts != nil, `protocol` != .any, !`protocol`.hasPorts {
      throw problem(
        sourcePorts == nil ? "destinationPorts" : "sourcePorts", "the protocol has no ports",
        "remove them, or choose tcp or udp")
    }
  }
}

extension FirewallTimeouts {
  func validate() throws(ConfigurationError) {
    let limits = [
      ("udpUnanswered", udpUnanswered, 120, "RFC 4787 REQ-5"), ("udp", udp, 120, "RFC 4787 REQ-5"),
      ("tcpEstablished", tcpEstablished, 7440, "RFC 5382 REQ-5"),
      ("tcpTransitory", tcpTransitory, 240, "RFC 5382 REQ-5"), ("icmpQuery", icmpQuery, 60, "RFC 5508 REQ-2"),
      ("other", other, 120, "RFC 6092 REC-12"),
    ]
    // Ticks must not come round between two looks.
    let longest = 30 * 86_400
    for (name, value, least, source) in limits where !(least...longest).contains(value) {
      throw ConfigurationError(
        subject: .firewall, setting: "timeouts.\(name)", problem: "\(value) s is out of range",
        remedy: "choose \(least) (\(source)) to \(longest) s")
    }
  }
}
