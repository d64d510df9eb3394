import Host

/// What a reload may change, and what it may not.
enum PlanChange {
  /// Some of a plan belongs to what was opened at the start.
  /// - Throws: `OperatorError` that names the first setting which would have to change.
  static func check(
    from old: GatewayPlan, to new: GatewayPlan, source: String
  ) throws(OperatorError) {
    let fixed = [
      ("name", new.name == old.name), ("listen", new.listen == old.listen),
      ("listen-tcp", new.listenTCP == old.listenTCP), ("listen-tls", new.listenTLS == old.listenTLS),
      ("tls: web-server", new.tls.webServer == old.tls.webServer),
      ("interface: name", new.interface.source == old.interface.source), ("control", new.control == old.control),
      ("state", new.state == old.state), ("engine", new.engine == old.engine),
      ("workers", new.workers == old.workers),
      ("firewall: flows", new.firewall.flowCapacity == old.firewall.flowCapacity),
      ("firewall: pending-flows", new.firewall.pendingCapacity == old.firewall.pendingCapacity),
    ]
    if let (setting, _) = fixed.first(where: { !$0.1 }) {
      throw OperatorError(
        "\(source): \(setting) cannot change while the gateway runs", remedy: "restart it, or change it back")
    }
  }
}
