import ArgumentParser
import Dataplane
import Identity
import KeyAgreement
import Keying
import Lab
import PacketIO
import Transports

/// `vpnbench loopback-gateways`: two dataplanes in one process, which reach each other over the loopback interface.
struct LoopbackGatewaysCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "loopback-gateways", abstract: "Both ends of a tunnel in one process.", shouldDisplay: false)

  @Option(help: "What the names of the two TUN devices begin with; 0 and 1 follow.") var interface: String
  @Option(help: "What lies behind each end, two prefixes.") var prefix: [String]
  @Option(help: "UDP port of the first end; the second has the next one.") var port: UInt16
  @Option(help: "aes-128-gcm, aes-256-gcm or chacha20-poly1305.") var cipher = "aes-128-gcm"
  @Option(help: "multi-buffer or openssl; the fastest by default.") var engine: String?
  @Flag(help: "Seal nothing: a bound, never a VPN.") var sealingLeftOut = false
  @Option(help: "Bytes of the largest packet inside.") var mtu = 1400
  @Flag(help: "Agree upon keys by a handshake.") var agree = false
  @Option(help: "Seconds after which either side makes new keys, again and again.") var rekeyInterval: Double?

  func run() throws {
    let prefixes = prefix.compactMap { Prefix($0) }
    guard let cipher = Cipher(rawValue: cipher), prefixes.count == 2, port < 65535 else {
      throw ValidationError("give a cipher, a port and two prefixes")
    }
    var options = Dataplane.Options()
    options.sealingLeftOut = sealingLeftOut
    if let engine {
      guard let named = CipherEngine(rawValue: engine) else { throw ValidationError("there is no engine \(engine)") }
      options.engine = named
    }
    let keys = (0...1).map { _ in
      KeyMaterial((0..<cipher.keyMaterialLength).map { _ in UInt8.random(in: 0...255) })
    }
    let associations = (0...1).map {
      SecurityAssociationConfiguration(spi: UInt32(4096 + $0), cipher: cipher, key: keys[$0])
    }
    let loopback = IPAddress(v4: 0x7F00_0001)
    let dataplanes = try (0...1).map { side in
      let configuration = Configuration(
        interface: InterfaceConfiguration(source: .name("\(interface)\(side)"), mtu: mtu),
        peers: [
          PeerConfiguration(
            name: "other", prefixes: [prefixes[1 - side]],
            path: Path(endpoint: Endpoint(address: loopback, port: port + UInt16(1 - side))),
            inbound: agree ? [] : [associations[1 - side]], outbound: agree ? nil : associations[side],
            negotiatesKeys: agree)
        ])
      return try Dataplane(
        configuration, transports: [UDPTransport(port: port + UInt16(side), address: loopback)], options: options)
    }
    if agree {
      let agents = dataplanes.map { KeyAgent($0) }
      let ends = (0...1).map { Path(endpoint: Endpoint(address: loopback, port: port + UInt16($0))) }
      Task { await LoopbackGatewaysCommand.agree(agents, dataplanes, ends, cipher, every: rekeyInterval) }
    }
    TextOutput.standardOutput.write("ready\n")
    withExtendedLifetime(dataplanes) {
      // The signal that ends the process also closes the devices.
      while true { pause(seconds: 3600) }
    }
  }

  /// Never returns: says every second how many rekeys there were, and what could not be opened.
  private static func agree(
    _ agents: [KeyAgent], _ dataplanes: [Dataplane], _ ends: [Path], _ cipher: Cipher, every interval: Double?
  ) async {
    let identities = agents.map { _ in HostIdentity.generate(.p256) }
    let suites = ESPSuite.all.filter { $0.cipher.rawValue == cipher.rawValue }
    for (side, agent) in agents.enumerated() {
      await agent.set(
        Partner(
          name: "other", local: identities[side], remote: identities[1 - side].tag, paths: [ends[1 - side]],
          suites: suites))
      await agent.start()
    }
    var told = monotonicSeconds()
    while true {
      try? await Task.sleep(for: .seconds(interval ?? 1))
      if interval != nil {
        // One of them, the other, both.
        let who = Int.random(in: 0...2)
        for (side, agent) in agents.enumerated() where who == side || who == 2 { await agent.rekey("other") }
      }
      guard monotonicSeconds() - told >= 1 else { continue }
      told = monotonicSeconds()
      var unopened: UInt64 = 0
      for dataplane in dataplanes {
        unopened += await dataplane.statistics().inboundDrops.reduce(0) { $0 + $1.packets }
      }
      let rekeys = await agents[0].status(of: "other")?.session?.rekeys ?? 0
      TextOutput.standardOutput.write("\(rekeys) rekeys, \(unopened) packets were not taken\n")
    }
  }
}
