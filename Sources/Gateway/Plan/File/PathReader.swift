import Dataplane
import Host
import Identity
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
  /// Identity relays, for paths that are called `relay`.
  let relays: [PlannedRelay]
  /// This gateway's, for tickets that name it by GID.
  let identity: HostIdentity?
  /// How paths through identity relays are called, and those by another kind than UDP: "relay-tcp".
  static let relayName = "relay"

  private enum Kind: String, CaseIterable {
    case udp, tcp, tls
    case udpHairpin = "udp-hairpin"
    case tcpHairpin = "tcp-hairpin"
    case tlsHairpin = "tls-hairpin"

    var isHairpin: Bool { [.udpHairpin, .tcpHairpin, .tlsHairpin].contains(self) }
    var isEncrypted: Bool { [.tls, .tlsHairpin].contains(self) }
  }
  private static let remedy = "write 192.0.2.2:4500 or \"[2001:db8::2]:4500\""
  private static let words = ["tcp:": Kind.tcp, "tls:": .tls]

  /// What a peer's paths come to.
  struct Paths {
    var paths: [ConfiguredPath] = []
    /// Tickets of those that meet at a proxy.
    var hairpins: [PlannedHairpin] = []
    /// Of TLS paths that have one, by where they lead.
    var certificateNames: [Endpoint: String] = [:]
  }

  func paths() -> Paths {
    let peerReach = peer.choice("reach", Reach.allCases) ?? .auto
    guard peer.has("paths") else {
      let path = address().flatMap { direct($0.kind, $0.endpoint, line: peer.line("address"), peerReach) }
      return Paths(paths: path.map { [$0] } ?? [])
    }
    if peer.has("address") {
      peer.add("address", "stands beside 'paths' on line \(peer.line("paths"))", "make it one of the paths")
    }
    return list(peerReach)
  }

  private func list(_ peerReach: Reach) -> Paths {
    let kinds = Kind.allCases.map(\.rawValue).joined(separator: ", ")
    let remedy = "begin each with its kind, '- udp: 192.0.2.2:4500'; known are \(kinds), and 'relay' alone"
    guard let entry = peer.setting("paths") else { return Paths() }
    guard case .list(let elements) = entry.setting.value else {
      peer.add("paths", "\(entry.setting.kind) stands where a list should", remedy)
      return Paths()
    }
    guard elements.count <= ConfiguredPath.listCapacity else {
      peer.add("paths", "there are \(elements.count)", "list \(ConfiguredPath.listCapacity) at most")
      return Paths()
    }
    var found = Paths()
    for element in elements {
      if case .scalar(PathReader.relayName) = element.value {
        found.paths += relayed(line: element.line, beside: found.paths)
        continue
      }
      guard let (path, hairpin, name) = path(element, peerReach, remedy) else { continue }
      if let hairpin {
        if found.hairpins.contains(where: { $0.file.ticket.ticket.number == hairpin.file.ticket.ticket.number }) {
          peer.add("paths", "\(path.name): the ticket is used twice", "get one for each path", line: element.line)
        }
        found.hairpins.append(hairpin)
      }
      if let name { found.certificateNames[path.path.endpoint] = name }
      if found.paths.contains(where: { $0.path == path.path }) {
        peer.add("paths", "\(path.name) \(path.path.endpoint) is listed twice", "remove one", line: element.line)
      } else {
        found.paths.append(path)
      }
    }
    if found.paths.count > ConfiguredPath.listCapacity {
      peer.add(
        "paths", "there are \(found.paths.count) with those through relays",
        "list \(ConfiguredPath.listCapacity) at most")
    }
    return found
  }

  /// Paths through all identity relays, in the order of those.
  private func relayed(line: Int, beside paths: [ConfiguredPath]) -> [ConfiguredPath] {
    if relays.isEmpty {
      peer.add(
        "paths", "this gateway has no relays",
        "list them at the top: 'relays: [{gid: \"GID\", udp: 203.0.113.9:4500}]'",
        line: line)
    } else if !peer.has("gid"), !peer.has("key") {
      peer.add(
        "paths", "a relay knows gateways by identities, and this peer has none",
        "name it by 'gid', or use a hairpin proxy",
        line: line)
    }
    if paths.contains(where: { $0.name.hasPrefix(PathReader.relayName) }) {
      peer.add("paths", "'relay' is listed twice", "write it once: it stands for all relays", line: line)
    }
    return relays.map { relay in
      let name = PathReader.relayName + (relay.kind == .udp ? "" : "-\(relay.kind.rawValue)")
      return ConfiguredPath(name: name, path: relay.path, isRelayed: true)
    }
  }

  private func path(
    _ element: Setting, _ peerReach: Reach, _ remedy: String
  ) -> (path: ConfiguredPath, hairpin: PlannedHairpin?, name: String?)? {
    guard case .table(var entries) = element.value, !entries.isEmpty else {
      peer.add("paths", "\(element.kind) is no path", remedy, line: element.line)
      return nil
    }
    var name: String?
    if entries.contains(where: { Kind(rawValue: $0.name)?.isEncrypted == true }),
      let place = entries.firstIndex(where: { $0.name == "name" })
    {
      name = certificateName(entries.remove(at: place))
      if name == nil { return nil }
    }
    var at: Setting.Entry?
    if entries.contains(where: { Kind(rawValue: $0.name)?.isHairpin == true }),
      let place = entries.firstIndex(where: { $0.name == "at" })
    {
      at = entries.remove(at: place)
    }
    guard entries.count == 1, let entry = entries.first else {
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
    if kind.isHairpin { return hairpin(kind, entry, at: at, name: name).map { ($0.0, $0.1, nil) } }
    guard case .scalar(let text) = entry.setting.value,
      let endpoint = Endpoint(text, defaultPort: PathReader.defaultPort(kind))
    else {
      let isName = if case .scalar(let text) = entry.setting.value { HostName.isMeant(text) } else { false }
      let what = isName ? "a host's name" : "not an address with a port"
      peer.add(
        "paths", "\(kind.rawValue): \(entry.setting.kind) is \(what)",
        (isName ? HostName.notLookedUp : "") + PathReader.remedy, line: entry.line)
      return nil
    }
    return direct(kind, endpoint, line: entry.line, peerReach).map { ($0, nil, name) }
  }

  private static func defaultPort(_ kind: Kind) -> UInt16 {
    kind == .tls ? TLSTransport.standardPort : GatewayPlan.defaultPort
  }

  /// What the certificate at the end of a TLS path has to be for.
  private func certificateName(_ entry: Setting.Entry) -> String? {
    var what = entry.setting.kind
    if case .scalar(let text) = entry.setting.value {
      if HostName.isValid(text) { return text }
      what = "'\(shortened(text))'"
    }
    peer.add(
      "paths", "tls: \(what) is no host's name",
      "write the name that the certificate there is for, relay.example.org, or remove 'name'", line: entry.line)
    return nil
  }

  /// A path that meets the peer's at a proxy, which the ticket's file names.
  /// - Parameters:
  ///   - at: where the proxy is met, of a ticket that names GIDs; else where it has TLS, and nil: at its address, on the
  ///     port of HTTPS.
  ///   - name: what its certificate has to be for.
  private func hairpin(
    _ kind: Kind, _ entry: Setting.Entry, at: Setting.Entry?, name: String?
  ) -> (ConfiguredPath, PlannedHairpin?)? {
    let remedy = "name the file that 'culvert ticket' wrote for this gateway"
    guard case .scalar(let text) = entry.setting.value else {
      peer.add("paths", "\(kind.rawValue): \(entry.setting.kind) is no file's name", remedy, line: entry.line)
      return nil
    }
    let path = SettingReader.resolve(text, in: directory)
    guard
      let use = RelayTicketReader.ticket(at: path).map({ byGIDs($0, path, kind, entry, at: at) })
        ?? byKeys(path, kind, entry, at: at)
    else { return nil }
    var hairpin = use
    if kind == .tlsHairpin { hairpin.certificateName = name }
    return (ConfiguredPath(name: kind.rawValue, path: hairpin.entry.path(transport: TransportPlace.hairpins)), hairpin)
  }

  /// By a ticket's file that has a proof key and says where the proxy is.
  private func byKeys(_ path: String, _ kind: Kind, _ entry: Setting.Entry, at: Setting.Entry?) -> PlannedHairpin? {
    do {
      let file = try HairpinTicketFile(path: path)
      var use = PlannedHairpin(file: file, path: kind == .udpHairpin ? .udp : .tcp)
      if kind == .tlsHairpin {
        use.tls = Endpoint(address: file.proxy.address, port: TLSTransport.standardPort)
        if let at {
          guard let endpoint = proxy(kind, at, "; or remove 'at': then it is the proxy's address, port 443") else {
            return nil
          }
          use.tls = endpoint
        }
      } else if let at {
        peer.add("paths", "\(kind.rawValue): the ticket's file says where the proxy is", "remove 'at'", line: at.line)
      }
      return use
    } catch {
      peer.add("paths", "\(kind.rawValue): \(error.problem)", error.remedy, line: entry.line)
      return nil
    }
  }

  /// By a ticket that names gateways by GID, for which this one vouches.
  private func byGIDs(
    _ ticket: [UInt8], _ path: String, _ kind: Kind, _ entry: Setting.Entry, at: Setting.Entry?
  ) -> PlannedHairpin? {
    func reject(_ problem: String, _ remedy: String) -> PlannedHairpin? {
      peer.add("paths", "\(kind.rawValue): \(problem)", remedy, line: entry.line)
      return nil
    }
    guard let at else {
      return reject("a ticket that names GIDs does not say where the proxy is", "add 'at: \"203.0.113.9:4501\"'")
    }
    guard let endpoint = proxy(kind, at) else { return nil }
    guard let identity else {
      return reject(
        "\(path) names gateways by GID, and this one has no identity",
        "make one with 'culvert keygen --identity FILE', and name it: 'identity: FILE'")
    }
    guard let file = HairpinTicketFile(ticket, of: identity, at: endpoint) else {
      return reject("\(path) is for two other gateways", "get one that names \(identity.tag)")
    }
    var use = PlannedHairpin(file: file, path: kind == .udpHairpin ? .udp : .tcp)
    if kind == .tlsHairpin { use.tls = endpoint }
    return use
  }

  /// Where a setting says that the proxy is.
  private func proxy(_ kind: Kind, _ at: Setting.Entry, _ more: String = "") -> Endpoint? {
    let port = kind == .tlsHairpin ? TLSTransport.standardPort : HairpinTicketFile.standardPort
    if case .scalar(let text) = at.setting.value, let endpoint = Endpoint(text, defaultPort: port),
      endpoint.address.isUnicast
    {
      return endpoint
    }
    peer.add(
      "paths", "\(kind.rawValue): \(at.setting.kind) is no address with a port",
      "write 203.0.113.9:\(port)\(more)", line: at.line)
    return nil
  }

  private func address() -> (kind: Kind, endpoint: Endpoint)? {
    let remedy = PathReader.remedy + ", with \"tcp:\" or \"tls:\" in front for a stream"
    guard let text = peer.text("address", remedy)?.value else { return nil }
    let kind = PathReader.words[String(text.prefix(4))] ?? .udp
    let rest = kind == .udp ? text : String(text.dropFirst(4))
    return peer.endpoint("address", text, rest, PathReader.defaultPort(kind), remedy).map { (kind, $0) }
  }

  /// A path that leads straight to the peer.
  private func direct(_ kind: Kind, _ endpoint: Endpoint, line: Int, _ peerReach: Reach) -> ConfiguredPath? {
    let setting = peer.has("paths") ? "paths" : "address"
    if !endpoint.address.isUnicast {
      peer.add(setting, "\(endpoint.address) is no host's address", PathReader.remedy, line: line)
    }
    let transport =
      switch kind {
      case .tcp: TransportPlace.streams
      case .tls: TransportPlace.encryptedStreams
      case .udp, .udpHairpin, .tcpHairpin, .tlsHairpin: TransportPlace.datagrams
      }
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

extension SettingReader {
  /// - Parameters:
  ///   - text: of the setting.
  ///   - rest: the same without what says of which kind it is.
  func endpoint(
    _ name: String, _ text: String, _ rest: String, _ defaultPort: UInt16, _ remedy: String
  ) -> Endpoint? {
    if let endpoint = Endpoint(rest, defaultPort: defaultPort) { return endpoint }
    if HostName.isMeant(rest) {
      add(name, "'\(shortened(text))' is a host's name", HostName.notLookedUp + remedy)
    } else {
      add(name, "'\(shortened(text))' is not an address with a port", remedy)
    }
    return nil
  }
}
