import CLinux
import Glibc
import PacketIO

/// What this process has set on an interface: that it is up, its MTU, addresses and routes.
///
/// An address or route that was on the interface already when it was asked for is used as it is, and never
/// removed: it belongs to whoever put it there. So a device that was set up beforehand needs no privilege.
final class LinkSettings {
  private let netlink: Netlink
  /// The interface as it was before anything was changed.
  private let found: Netlink.Link
  private var inForce: InterfaceConfiguration?
  private var ownAddresses: Set<InterfaceAddress> = []
  private var ownRoutes: Set<Prefix> = []
  private var hasSetMTU = false

  init(_ netlink: Netlink, index: Int32, name: String) throws(SystemError) {
    self.netlink = netlink
    do throws(Netlink.Refusal) {
      guard let link = try netlink.link(index) else { throw Netlink.Refusal(errno: ENODEV, explanation: nil) }
      found = link
    } catch {
      throw error.explained("look for interface \(name)", remedy: "somebody removed it: start again")
    }
  }

  private var name: String { found.name }

  /// Brings the interface up, if it is not.
  ///
  /// - Parameter quietly: without a link-local IPv6 address, and so without the router solicitations and
  ///   multicast reports that the kernel would send through the tunnel.
  func bringUp(quietly: Bool) throws(SystemError) {
    guard !found.isUp else { return }
    // Without IPv6 there is nothing to leave out, and this fails.
    if quietly { try? netlink.omitLinkLocalAddress(found.index) }
    try refusable("bring \(name) up") { () throws(Netlink.Refusal) in try netlink.setLink(found.index, up: true) }
  }

  /// Moves MTU, addresses and routes to what `new` says; on an error everything is as it was before.
  func move(to new: InterfaceConfiguration) throws(SystemError) {
    try LinkSettings.validate(new)
    try requireFree(new.addresses)
    do {
      try settle(new)
      inForce = new
    } catch {
      // What cannot be undone either is left; the first error tells why.
      if let inForce { try? settle(inForce) }
      throw error
    }
  }

  /// Puts the interface back as it was found, as far as the kernel lets us.
  func restore() {
    // Routes go with the link, in one step.
    if !found.isUp { try? netlink.setLink(found.index, up: false) }
    if found.isUp { for route in ownRoutes { try? netlink.remove(route, from: found.index) } }
    for address in ownAddresses { try? netlink.remove(address, from: found.index) }
    if hasSetMTU { try? netlink.setLink(found.index, mtu: found.mtu) }
    ownRoutes = []
    ownAddresses = []
    hasSetMTU = false
    inForce = nil
  }

  /// Takes the link down: its routes are gone at once, even while descriptors of the device linger.
  func takeDown() { try? netlink.setLink(found.index, up: false) }
}

// MARK: - Checks

extension LinkSettings {
  /// What can be known to be wrong without asking the kernel.
  static func validate(_ configuration: InterfaceConfiguration) throws(SystemError) {
    let families = Set(configuration.addresses.map(\.address.family) + configuration.routes.map(\.address.family))
    let least = families.contains(.v6) ? 1280 : 576
    guard (least...65535).contains(configuration.mtu) else {
      let reason = least == 1280 && configuration.mtu < 1280 ? " (IPv6 needs 1280, RFC 8200)" : ""
      throw SystemError(
        "set the MTU to \(configuration.mtu)", errno: EINVAL, remedy: "choose \(least) to 65535\(reason)")
    }
    var seen: Set<IPAddress> = []
    for entry in configuration.addresses {
      guard (0...entry.address.bitWidth).contains(entry.prefixLength) else {
        throw SystemError(
          "add address \(entry)", errno: EINVAL,
          remedy: "a prefix length of this family is 0 to \(entry.address.bitWidth)")
      }
      guard seen.insert(entry.address).inserted else {
        throw SystemError("add address \(entry)", errno: EINVAL, remedy: "it is listed twice: remove one")
      }
    }
  }

  /// Linux lets two interfaces have one address, and then answers for it on both. Link-local addresses may repeat.
  private func requireFree(_ addresses: [InterfaceAddress]) throws(SystemError) {
    if addresses.isEmpty { return }
    let wanted = Set(addresses.map(\.address).filter { !Prefix.linkLocal.contains($0) })
    let all = try allAddresses()
    for (index, entry) in all where index != found.index && wanted.contains(entry.address) {
      let other = nameOfInterface(index)
      throw SystemError(
        "add address \(entry.address) to \(name)", errno: EADDRINUSE,
        remedy: "the address is already taken by \(other): choose another, or remove it there"
          + " (ip address del \(entry) dev \(other))")
    }
  }

  private func nameOfInterface(_ index: Int32) -> String { (try? netlink.link(index))?.name ?? "interface \(index)" }
}

// MARK: - Changes

extension LinkSettings {
  /// The order matters: an address is added before another is removed, because with its last IPv4 address an
  /// interface loses its routes; and an on-link prefix that loses its address may become a route.
  private func settle(_ target: InterfaceConfiguration) throws(SystemError) {
    try setMTU(target.mtu)
    let addresses = Set(target.addresses)
    try addMissing(target.addresses)

    let onLink = Set(target.addresses.map { Prefix($0.address, length: $0.prefixLength) })
    let routes = target.routes.filter { !onLink.contains($0) }
    for route in ownRoutes.subtracting(routes) { try remove(route) }

    let obsolete = ownAddresses.subtracting(addresses)
    for address in obsolete { try remove(address) }
    // With a primary IPv4 address the kernel removes the others of its subnet.
    if !obsolete.isEmpty { try addMissing(target.addresses) }

    try addMissing(routes)
  }

  private func setMTU(_ mtu: Int) throws(SystemError) {
    try refusable("set the MTU of \(name) to \(mtu)") { () throws(Netlink.Refusal) in
      if try netlink.link(found.index)?.mtu == mtu { return }
      try netlink.setLink(found.index, mtu: mtu)
      hasSetMTU = true
    }
  }

  private func addMissing(_ addresses: [InterfaceAddress]) throws(SystemError) {
    if addresses.isEmpty { return }
    let present = try allAddresses().filter { $0.index == found.index }.map(\.address)
    for address in addresses where !present.contains(address) {
      // IPv6 knows an address once, whatever its prefix length.
      if let other = present.first(where: { $0.address == address.address && !$0.address.isV4 }) {
        guard ownAddresses.contains(other) else {
          throw SystemError(
            "add address \(address) to \(name)", errno: EEXIST,
            remedy: "it is there as \(other): remove that, or configure it so")
        }
        try remove(other)
      }
      try refusable("add address \(address) to \(name)", isIPv6: !address.address.isV4) { () throws(Netlink.Refusal) in
        try netlink.add(address, to: found.index)
      }
      ownAddresses.insert(address)
    }
  }

  private func addMissing(_ routes: [Prefix]) throws(SystemError) {
    for family in [IPAddress.Family.v4, .v6] {
      let wanted = routes.filter { $0.address.family == family }
      if wanted.isEmpty { continue }
      var present: Set<Prefix> = []
      try refusable("list the routes of \(name)", isIPv6: family == .v6) { () throws(Netlink.Refusal) in
        present = Set(try netlink.routes(family, through: found.index).map(\.prefix))
      }
      for route in wanted where present.insert(route).inserted {
        do { try netlink.add(route, to: found.index) } catch {
          guard error.errno == EEXIST else {
            throw error.explained("add route \(route) to \(name)", remedy: remedy(error, isIPv6: family == .v6))
          }
          let other = (try? netlink.routes(family))?.first { $0.prefix == route }.map { nameOfInterface($0.index) }
          throw SystemError(
            "add route \(route) to \(name)", errno: EEXIST,
            remedy: "such a route exists already\(other.map { " (dev \($0))" } ?? ""): remove it"
              + " (ip route del \(route)), or leave it out of the configuration")
        }
        ownRoutes.insert(route)
      }
    }
  }

  private func remove(_ address: InterfaceAddress) throws(SystemError) {
    try removing("remove address \(address) from \(name)") { () throws(Netlink.Refusal) in
      try netlink.remove(address, from: found.index)
    }
    ownAddresses.remove(address)
  }

  private func remove(_ route: Prefix) throws(SystemError) {
    try removing("remove route \(route) from \(name)") { () throws(Netlink.Refusal) in
      try netlink.remove(route, from: found.index)
    }
    ownRoutes.remove(route)
  }
}

// MARK: - Errors

extension LinkSettings {
  private func allAddresses() throws(SystemError) -> [(index: Int32, address: InterfaceAddress)] {
    do { return try netlink.addresses() } catch { throw error.explained("list addresses", remedy: remedy(error)) }
  }

  private func refusable(
    _ operation: String, isIPv6: Bool = false, _ body: () throws(Netlink.Refusal) -> Void
  ) throws(SystemError) {
    do { try body() } catch { throw error.explained(operation, remedy: remedy(error, isIPv6: isIPv6)) }
  }

  /// What is gone already need not be removed.
  private func removing(_ operation: String, _ body: () throws(Netlink.Refusal) -> Void) throws(SystemError) {
    do { try body() } catch {
      guard [ESRCH, EADDRNOTAVAIL, ENODEV, ENXIO].contains(error.errno) else {
        throw error.explained(operation, remedy: remedy(error))
      }
    }
  }

  private func remedy(_ refusal: Netlink.Refusal, isIPv6: Bool = false) -> String? {
    switch refusal.errno {
    case EPERM: "run as root or with CAP_NET_ADMIN, or hand over a TUN descriptor whose device has it set already"
    case EACCES where isIPv6, EINVAL where isIPv6:
      "IPv6 may be off (sysctl net.ipv6.conf.\(name).disable_ipv6): set that to 0, or leave out IPv6"
    case ENODEV: "somebody removed the device: start again"
    default: nil
    }
  }
}

extension InterfaceAddress: CustomStringConvertible {
  public var description: String { "\(address)/\(prefixLength)" }
}
