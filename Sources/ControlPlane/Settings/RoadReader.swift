import Dataplane
import PacketIO
import Transports

/// A ticket by which a peer is met at a hairpin proxy, and the kind of road to the proxy.
struct HairpinUse: Sendable, Equatable {
  var file: HairpinTicketFile
  var road: HairpinRoad

  var entry: HairpinTransport.Entry { HairpinTransport.Entry(file, road) }

  static func == (a: HairpinUse, b: HairpinUse) -> Bool { a.file.text == b.file.text && a.road == b.road }
}

/// Reads how a peer is reached: `roads`, or `address` for one alone.
struct RoadReader {
  let peer: SettingReader
  let listen: GatewayFile.Listen
  /// What the file says of this gateway's own situation.
  let ownReach: Reach
  /// Relative paths begin here.
  let directory: String

  private enum Kind: String, CaseIterable {
    case udp, tcp
    case udpHairpin = "udp-hairpin"
    case tcpHairpin = "tcp-hairpin"
  }
  private static let remedy = "write 192.0.2.2:4500 or \"[2001:db8::2]:4500\""

  /// The roads, and the tickets of those that meet at a proxy.
  func roads() -> (roads: [Road], hairpins: [HairpinUse]) {
    let peerReach = peer.choice("reach", Reach.allCases) ?? .auto
    guard peer.has("roads") else {
      return address().flatMap { direct($0.kind, $0.endpoint, line: peer.line("address"), peerReach) }.map {
        ([$0], [])
      }
        ?? ([], [])
    }
    if peer.has("address") {
      peer.add("address", "stands beside 'roads' on line \(peer.line("roads"))", "make it one of the roads")
    }
    return list(peerReach)
  }

  private func list(_ peerReach: Reach) -> (roads: [Road], hairpins: [HairpinUse]) {
    let kinds = Kind.allCases.map(\.rawValue).joined(separator: ", ")
    let remedy = "begin each with its kind, '- udp: 192.0.2.2:4500'; known are \(kinds)"
    guard let entry = peer.setting("roads") else { return ([], []) }
    guard case .list(let elements) = entry.setting.value else {
      peer.add("roads", "\(entry.setting.kind) stands where a list should", remedy)
      return ([], [])
    }
    guard elements.count <= Road.listCapacity else {
      peer.add("roads", "there are \(elements.count)", "list \(Road.listCapacity) at most")
      return ([], [])
    }
    var roads: [Road] = []
    var hairpins: [HairpinUse] = []
    for element in elements {
      guard let (road, hairpin) = road(element, peerReach, remedy) else { continue }
      if let hairpin {
        if hairpins.contains(where: { $0.file.ticket.ticket.number == hairpin.file.ticket.ticket.number }) {
          peer.add("roads", "\(road.name): the ticket is used twice", "get one for each road", line: element.line)
        }
        hairpins.append(hairpin)
      }
      if roads.contains(where: { $0.path == road.path }) {
        peer.add("roads", "\(road.name) \(road.path.endpoint) is listed twice", "remove one", line: element.line)
      } else {
        roads.append(road)
      }
    }
    return (roads, hairpins)
  }

  private func road(_ element: Setting, _ peerReach: Reach, _ remedy: String) -> (Road, HairpinUse?)? {
    guard case .table(let entries) = element.value, entries.count == 1, let entry = entries.first else {
      peer.add("roads", "\(element.kind) is no road", remedy, line: element.line)
      return nil
    }
    guard let kind = Kind(rawValue: entry.name) else {
      let known = Kind.allCases.map(\.rawValue)
      peer.add(
        "roads", "no road is called '\(shortened(entry.name))'", Spelling.remedy(for: entry.name, among: known),
        line: entry.line)
      return nil
    }
    if kind == .udpHairpin || kind == .tcpHairpin { return hairpin(kind, entry) }
    guard case .scalar(let text) = entry.setting.value,
      let endpoint = Endpoint(text, defaultPort: GatewayFile.defaultPort)
    else {
      peer.add(
        "roads", "\(kind.rawValue): \(entry.setting.kind) is not an address with a port", RoadReader.remedy,
        line: entry.line)
      return nil
    }
    return direct(kind, endpoint, line: entry.line, peerReach).map { ($0, nil) }
  }

  /// A road that meets the peer's at a proxy, which the ticket's file names.
  private func hairpin(_ kind: Kind, _ entry: Setting.Entry) -> (Road, HairpinUse?)? {
    let remedy = "name the file that 'culvert ticket' wrote for this gateway"
    guard case .scalar(let text) = entry.setting.value else {
      peer.add("roads", "\(kind.rawValue): \(entry.setting.kind) is no file's name", remedy, line: entry.line)
      return nil
    }
    do {
      let file = try HairpinTicketFile(path: GatewayFileReader.resolve(text, in: directory))
      let use = HairpinUse(file: file, road: kind == .tcpHairpin ? .tcp : .udp)
      let path = file.path(use.road, transport: GatewayFile.hairpinTransport)
      return (Road(name: kind.rawValue, path: path), use)
    } catch {
      peer.add("roads", "\(kind.rawValue): \(error.problem)", error.remedy, line: entry.line)
      return nil
    }
  }

  private func address() -> (kind: Kind, endpoint: Endpoint)? {
    let remedy = RoadReader.remedy + ", with \"tcp:\" in front for a stream"
    return peer.value("address", "an address with a port", remedy) { text in
      let isStream = text.hasPrefix("tcp:")
      return Endpoint(isStream ? String(text.dropFirst(4)) : text, defaultPort: GatewayFile.defaultPort).map {
        (isStream ? .tcp : .udp, $0)
      }
    }?.value
  }

  /// A road that leads straight to the peer.
  private func direct(_ kind: Kind, _ endpoint: Endpoint, line: Int, _ peerReach: Reach) -> Road? {
    let setting = peer.has("roads") ? "roads" : "address"
    if !endpoint.address.isUnicast {
      peer.add(setting, "\(endpoint.address) is no host's address", RoadReader.remedy, line: line)
    }
    let transport = kind == .tcp ? GatewayFile.streamTransport : GatewayFile.datagramTransport
    if kind == .udp, let own = listen.address, own.family != endpoint.address.family {
      let family = own.isV4 ? "IPv4" : "IPv6"
      peer.add(
        setting, "cannot be reached from \(listen)", "use an \(family) address, or listen on a port alone", line: line)
    }
    let isDecidedByAddress = ownReach == .open && peerReach == .open
    let opener = Reach.opener(
      here: ownReach, there: peerReach,
      ownAddress: isDecidedByAddress ? listen.address ?? LocalAddress.toward(endpoint) : nil,
      peerAddress: endpoint.address)
    if opener == .nobody {
      peer.add(
        setting, "neither side can open a road to \(endpoint): both are behind firewalls",
        "use a hairpin proxy, or correct 'reach', here and at the top", line: line)
    }
    return Road(
      name: kind.rawValue, path: Path(transport: transport, endpoint: endpoint),
      originates: opener == .here || opener == .both)
  }
}
