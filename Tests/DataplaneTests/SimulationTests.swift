import Testing

/// Whole networks of gateways, from a seed: `Simulator` compares every step with a model.
@Suite struct SimulationTests {
  @Test(arguments: [1, 2, 3, 4, 5, 6] as [UInt64])
  func gatewaysDoWhatTheirModelsDo(seed: UInt64) {
    let simulator = Simulator(seed: seed)
    simulator.run(steps: 400)
    // All of it has to have happened, or the run shows nothing.
    #expect(simulator.deliveredPackets > 300)
    let kinds = [
      "sent", "spoofed", "lost", "doubled", "damaged", "replayed", "invented", "rekeyed", "changed peers", "reloaded",
      "moved",
    ]
    for kind in kinds { #expect(simulator.happened[kind, default: 0] > 3, "\(kind)") }
    #expect(simulator.happened["told", default: 0] > 0)
  }
}
