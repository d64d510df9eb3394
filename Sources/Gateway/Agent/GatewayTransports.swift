import Dataplane
import PacketIO
import Transports

/// A gateway's transports, of which some are told of changes while it runs.
struct GatewayTransports {
  private let tls: TLSTransport
  /// Nil: no ticket has come yet.
  private(set) var hairpins: HairpinTransport?
  /// Those that are there at the start; paths name a transport by its place in this list (`TransportPlace`).
  let list: [any Transport]

  init(_ plan: GatewayPlan) {
    tls = TLSTransport(
      port: plan.listenTLS?.port, address: plan.listenTLS?.address, certificate: plan.tls.certificate,
      names: plan.certificateNames, webServer: plan.tls.webServer)
    hairpins = plan.hairpins.isEmpty ? nil : HairpinTransport(plan.hairpins.map(\.entry))
    list =
      [
        UDPTransport(port: plan.listen.port, address: plan.listen.address),
        TCPTransport(port: plan.listenTCP?.port, address: plan.listenTCP?.address), tls,
      ] + [hairpins].compactMap(\.self)
  }

  /// Tells them what a new plan has for them.
  mutating func update(_ plan: GatewayPlan, _ dataplane: Dataplane) async throws {
    // Read anew with the plan, so one that was renewed on disk is shown from now on.
    try tls.update(certificate: plan.tls.certificate)
    tls.update(names: plan.certificateNames)
    if let hairpins { return hairpins.update(plan.hairpins.map(\.entry)) }
    if plan.hairpins.isEmpty { return }
    let transport = HairpinTransport(plan.hairpins.map(\.entry))
    // Last, as where it was there at the start.
    _ = try await dataplane.add(transport)
    hairpins = transport
  }

  /// The plan before stays in force.
  func restore(_ plan: GatewayPlan) {
    try? tls.update(certificate: plan.tls.certificate)
    tls.update(names: plan.certificateNames)
    hairpins?.update(plan.hairpins.map(\.entry))
  }
}
