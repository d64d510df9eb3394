import Dataplane
import Host
import PacketIO
import Settings
import Transports

/// Reads how a peer is reached: `paths`, or `address` for one alone.
struct PathReader {
  let peer: SettingReader
  let listen: GatewayPlan.Listen
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

  /// The paths, and the tickets of those that meet at a proxy.
  func paths() -> (paths: [ConfiguredPath], hairpins: [PlannedHairpin]) {
    let peerReach = peer.choice("reach", Reach.allCases) ?? .auto
    guard peer.has("paths") else {
      return address().flatMap { direct($0.kind, $0.endpoint, line: peer.line("address"), peerReach) }.map {
        ([$0], [])
      }
        ?? ([], [])
    }
    if peer.has("address") {
      peer.add("address", "stands beside 'paths' on line \(peer.line("paths"))", "make it one of the paths")
    }
    return list(peerReach)
  }

  private func list(_ peerReach: Reach) -> (paths: [ConfiguredPath], hairpins: [PlannedHairpin]) {
    let kinds = Kind.allCases.map(\.rawValue).joined(separator: ", ")
    let remedy = "begin each with its kind, '- udp: 192.0.2.2:4500'; known are \(kinds)"
    guard let entry = peer.setting("paths") else { return ([], []) }
    guard case .list(let elements) = entry.setting.value else {
      peer.add("paths", "\(entry.setting.kind) stands where a list should", remedy)
      return ([], [])
    }
    guard elements.count <= ConfiguredPath.listCapacity else {
      peer.add("paths", "there are \(elements.count)", "list \(ConfiguredPath.listCapacity) at most")
      return ([], [])
    }
    var paths: [ConfiguredPath] = []
    var hairpins: [PlannedHairpin] = []
    for element in elements {
      guard let (path, hairpin) = path(element, peerReach, remedy) else { continue }
      if let hairpin {
        if hairpins.contains(where: { $0.file.ticket.ticket.number == hairpin.file.ticket.ticket.number }) {
          peer.add("paths", "\(path.name): the ticket is used twice", "get one for each path", line: element.line)
        }
        hairpins.append(hairpin)
      }
      if paths.contains(where: { $0.path == path.path }) {
        peer.add("paths", "\(path.name) \(path.path.endpoint) is listed twice", "remove one", line: element.line)
      } else {
        paths.append(path)
      }
    }
    return (paths, hairpins)
  }

  private func path(_ element: Setting, _ peerReach: Reach, _ remedy: String) -> (ConfiguredPath, PlannedHairpin?)? {
    guard case .table(let entries) = element.value, entries.count == 1, let entry = entries.first else {
      peer.add("paths", "\(element.kind) is no path", remedy, line: element.line)
      return nil
    }
    guard let kind = Kind(rawValue: entry.name) else {
      let known = Kind.allCases.map(\.rawValue)
      peer.add(
        "paths", "no path is called '\(shortened(entry.name))'", Spelling.remedy(for: entry.name, among: known),
        line: entry.line)
      return nil
    }
    if kind == .udpHairpin || kind == .tcpHairpin { return hairpin(kind, entry) }
    guard case .scalar(let text) = entry.setting.value,
      let endpoint = Endpoint(text, defaultPort: GatewayPlan.defaultPort)
    else {
      peer.add(
        "paths", "\(kind.rawValue): \(entry.setting.kind) is not an address with a port", PathReader.remedy,
        line: entry.line)
      return nil
    }
    return direct(kind, endpoint, line: entry.line, peerReach).map { ($0, nil) }
  }

  /// A path that meets the peer's at a proxy, which the ticket's file names.
  private func hairpin(_ kind: Kind, _ entry: Setting.Entry) -> (ConfiguredPath, PlannedHairpin?)? {
    let remedy = "name the file that 'culvert ticket' wrote for this gateway"
    guard case .scalar(let text) = entry.setting.value else {
      peer.add("paths", "\(kind.rawValue): \(entry.setting.kind) is no file's name", remedy, line: entry.line)
      return nil
    }
    do {
      let file = try HairpinTicketFile(path: GatewayFileReader.resolve(text, in: directory))
      let use = PlannedHairpin(file: file, path: kind == .tcpHairpin ? .tcp : .udp)
      let path = file.path(use.path, transport: TransportPlace.hairpins)
      return (ConfiguredPath(name: kind.rawValue, path: path), use)
    } catch {
      peer.add("paths", "\(kind.rawValue): \(error.problem)", error.remedy, line: entry.line)
      return nil
    }
  }

  private func address() -> (kind: Kind, endpoint: Endpoint)? {
    let remedy = PathReader.remedy + ", with \"tcp:\" in front for a stream"
    return peer.value("address", "an address with a port", remedy) { text in
      let isStream = text.hasPrefix("tcp:")
      return Endpoint(isStream ? String(text.dropFirst(4)) : text, defaultPort: GatewayPlan.defaultPort).map {
        (isStream ? .tcp : .udp, $0)
      }
    }?.value
  }

  /// A path that leads straight to the peer.
  private func direct(_ kind: Kind, _ endpoint: Endpoint, line: Int, _ peerReach: Reach) -> ConfiguredPath? {
    let setting = peer.has("paths") ? "paths" : "address"
    if !endpoint.address.isUnicast {
      peer.add(setting, "\(endpoint.address) is no host's address", PathReader.remedy, line: line)
    }
    let transport = kind == .tcp ? TransportPlace.streams : TransportPlace.datagrams
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
        setting, "neither side can open a path to \(endpoint): both are behind firewalls",
        "use a hairpin proxy, or correct 'reach', here and at the top", line: line)
    }
    return ConfiguredPath(
      name: kind.rawValue, path: Path(transport: transport, endpoint: endpoint),
      originates: opener == .here || opener == .both)
  }
}
