import Host
import Identity
import PacketIO
import Settings
import Transports

/// Reads the identity relays of a gateway's file, and the paths to each.
struct RelayReader {
  private let top: SettingReader
  private let plan: GatewayPlan

  /// As many as anybody is enrolled at at a time.
  static let mostRelays = 3

  init(_ top: SettingReader, plan: GatewayPlan) {
    self.top = top
    self.plan = plan
  }

  /// The best first, and of each its paths, UDP first.
  func relays() -> [PlannedRelay] {
    guard let entry = top.setting("relays") else { return [] }
    guard case .list(let list) = entry.setting.value else {
      if case .empty = entry.setting.value { return [] }
      top.add(
        "relays", "\(entry.setting.kind) stands where a list should",
        "write '- {gid: \"GID\", udp: 203.0.113.9:4500}' for each")
      return []
    }
    if !plan.namesIdentity {
      top.add(
        "relays", "this gateway has no identity to enrol with",
        "make one with 'culvert keygen --identity FILE', and name it: 'identity: FILE'")
    }
    if list.count > RelayReader.mostRelays {
      top.add("relays", "there are \(list.count)", "list \(RelayReader.mostRelays) at most")
    }
    var relays: [PlannedRelay] = []
    for element in list {
      let paths = paths(element)
      if let twice = paths.first(where: { new in relays.contains { $0.gid == new.gid || $0.path == new.path } }) {
        top.add("relays", "\(twice.gid) is listed twice, or its address", "remove one", line: element.line)
      } else {
        relays += paths
      }
    }
    return relays
  }

  private func paths(_ element: Setting) -> [PlannedRelay] {
    let known = PlannedRelay.PathKind.allCases.map(\.rawValue)
    let reader = SettingReader(
      element, line: element.line, place: "relays", known: ["gid"] + known + ["name"], problems: top.problems)
    if !reader.has("gid") { reader.reportMissing("gid", "write what 'culvert identity FILE' prints for the relay") }
    if !known.contains(where: reader.has) {
      reader.reportMissing(
        "udp", "write 203.0.113.9:4500 or \"[2001:db8::9]:4500\"; or 'tcp' or 'tls' where UDP does not pass")
    }
    let gid = reader.gid("gid", of: "the relay")
    let endpoints = PlannedRelay.PathKind.allCases.compactMap { kind in endpoint(kind, reader).map { (kind, $0) } }
    let certificateName = certificateName(reader)
    guard let gid else { return [] }
    return endpoints.map { kind, endpoint in
      PlannedRelay(
        gid: gid, kind: kind, endpoint: endpoint, certificateName: kind == .tls ? certificateName : nil)
    }
  }

  /// What the certificate at the end of the relay's TLS has to be for.
  private func certificateName(_ reader: SettingReader) -> String? {
    guard reader.has("name") else { return nil }
    if !reader.has(PlannedRelay.PathKind.tls.rawValue) {
      reader.add("name", "there is no 'tls' whose certificate could be for it", "add 'tls', or remove it")
    }
    let remedy = "write the name that the certificate there is for, relay.example.org, or remove 'name'"
    return reader.value("name", "a host's name", remedy) { HostName.isValid($0) ? $0 : nil }?.value
  }

  private func endpoint(_ kind: PlannedRelay.PathKind, _ reader: SettingReader) -> Endpoint? {
    let name = kind.rawValue
    let remedy = "write 203.0.113.9:4500 or \"[2001:db8::9]:4500\""
    let defaultPort = kind == .tls ? TLSTransport.standardPort : GatewayPlan.defaultPort
    guard let text = reader.text(name, remedy)?.value,
      let endpoint = reader.endpoint(name, text, text, defaultPort, remedy)
    else { return nil }
    if !endpoint.address.isUnicast { reader.add(name, "\(endpoint.address) is no host's address", remedy) }
    if kind == .udp, let own = plan.listen.address, own.family != endpoint.address.family {
      reader.add(
        name, "cannot be reached from \(plan.listen)", "use an address of the same family, or listen on a port alone")
    }
    return endpoint
  }
}
