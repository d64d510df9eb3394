import PacketIO

/// What lies between gateways: links, translators, and who has which address.
struct Internet {
  /// The relay among them.
  private let gateways: Int
  private let interfaces: Int
  var links: [Link]
  var translators: [Place: Translator] = [:]
  private var endpoints: [Place: Endpoint] = [:]
  private var places: [Endpoint: Place] = [:]
  private var moves = 0

  init(_ plan: Plan) {
    let hasRelay = !plan.hairpins.isEmpty
    gateways = plan.gateways + (hasRelay ? 1 : 0)
    interfaces = plan.interfaces + (hasRelay ? 1 : 0)
    links = Array(repeating: Link(), count: gateways * gateways * interfaces)
    for gateway in 0..<plan.gateways {
      for interface in 0..<interfaces {
        let place = Place(gateway: gateway, interface: interface)
        translators[place] = plan.translator(place)
        put(place, at: Plan.address(place))
      }
    }
    if hasRelay {
      let all = Endpoint(address: HairpinRelay.endpoint.address, port: 0)
      put(Place(gateway: plan.relay, interface: plan.interfaces), at: all)
    }
  }

  // MARK: Links

  /// The number of a link one way, between two gateways' transports of that number.
  func link(from gateway: Int, to other: Int, interface: Int = 0) -> Int {
    (gateway * gateways + other) * interfaces + interface
  }

  /// Both ways between two gateways.
  mutating func change(_ gateway: Int, _ other: Int, interface: Int = 0, _ change: (inout Link.Faults) -> Void) {
    change(&links[link(from: gateway, to: other, interface: interface)].faults)
    change(&links[link(from: other, to: gateway, interface: interface)].faults)
  }

  /// All links are in order again.
  mutating func mend() { for index in links.indices { links[index].faults = Link.Faults() } }

  // MARK: Addresses

  /// Where no gateway ever is.
  static let attacker = Endpoint(address: IPAddress(v4: 0xC633_6402), port: 4500)
  static func isAttackers(_ address: IPAddress) -> Bool { address == attacker.address }

  func endpoint(of place: Place) -> Endpoint? { endpoints[place] }

  /// Who has an address; nil: nobody.
  func place(of endpoint: Endpoint) -> Place? {
    places[endpoint] ?? places[Endpoint(address: endpoint.address, port: 0)]
  }

  /// A gateway has another address from now on.
  mutating func move(_ place: Place) {
    moves += 1
    put(place, at: Plan.address(place, moves: moves % 10 + 1))
  }

  private mutating func put(_ place: Place, at endpoint: Endpoint) {
    if let before = endpoints[place] { places[before] = nil }
    endpoints[place] = endpoint
    // Nobody reaches what a translator hides.
    if let translator = translators[place] {
      places[Endpoint(address: translator.address, port: 0)] = place
    } else {
      places[endpoint] = place
    }
  }

  /// Where a datagram from a place seems to come from.
  mutating func leave(_ place: Place, to destination: Endpoint, now: MonotonicTime) -> Endpoint? {
    translators[place]?.leave(to: destination, now: now) ?? endpoints[place]
  }

  /// Whether a datagram gets in at the end of its link.
  mutating func enters(_ flight: Flight, now: MonotonicTime) -> Bool {
    if flight.link >= 0 { links[flight.link].received += 1 }
    guard place(of: flight.destination) == flight.to else { return false }
    return translators[flight.to]?.enters(at: flight.destination.port, from: flight.source, now: now) ?? true
  }
}
