extension Firewall {
  /// The figures of now.
  func report() -> Statistics.Firewall {
    let configuration = policy?.configuration ?? FirewallConfiguration()
    let fixed = FirewallGround.fixed.count
    var rules: [Statistics.Firewall.Rule] = []
    for (place, rule) in (policy?.enabledRules ?? []).enumerated() {
      rules.append(
        Statistics.Firewall.Rule(
          number: rule.number, name: rule.name, action: rule.action, traffic: counters[fixed + place]))
    }
    var grounds: [Statistics.Firewall.Ground] = []
    for ground in FirewallGround.fixed where counters[ground.place].packets > 0 {
      grounds.append(Statistics.Firewall.Ground(name: ground.name, traffic: counters[ground.place]))
    }
    return Statistics.Firewall(
      mode: configuration.mode, rules: rules, grounds: grounds, establishedFlows: table.count(.established),
      pendingFlows: table.count(.pendingOutbound) + table.count(.pendingInbound), closedFlows: table.count(.closed),
      flowCapacity: share(of: configuration.flowCapacity), pendingCapacity: share(of: configuration.pendingCapacity),
      opened: table.counts.opened, expired: table.counts.expired, evicted: table.counts.evicted,
      overflowed: table.counts.overflowed)
  }
}
