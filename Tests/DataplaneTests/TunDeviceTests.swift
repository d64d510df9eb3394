import CLinux
import Glibc
import PacketIO
import Testing

@testable import Dataplane

private func shell(_ command: String) -> String { PrivateNetwork.shell(command) }

private func address(_ text: String) -> InterfaceAddress {
  let parts = text.split(separator: "/")
  return InterfaceAddress(IPAddress(String(parts[0]))!, prefixLength: Int(parts[1])!)
}

private func interface(
  _ name: String = "cv0", _ addresses: [String] = [], routes: [String] = [], mtu: Int = 1400,
  offloads: TunOffloads = .all
) -> InterfaceConfiguration {
  InterfaceConfiguration(
    source: .name(name), addresses: addresses.map(address), routes: routes.map { Prefix($0)! }, mtu: mtu,
    offloads: offloads)
}

/// The `SystemError` that `body` throws.
private func refusal(_ body: () throws -> Void) -> SystemError {
  do { try body() } catch { return error as? SystemError ?? SystemError("not a SystemError: \(error)", errno: 0) }
  return SystemError("nothing was refused", errno: 0)
}

/// Opens a queue as an embedder would, to hand it over.
private func openQueue(_ name: String, _ flags: Int32) -> Int32 {
  let descriptor = DeviceCalls.open("/dev/net/tun", O_RDWR)
  var request = [UInt8](repeating: 0, count: DeviceCalls.ioctlArgumentLength)
  for (position, byte) in name.utf8.enumerated() { request[position] = byte }
  request[16] = UInt8(truncatingIfNeeded: flags)
  request[17] = UInt8(truncatingIfNeeded: flags >> 8)
  return DeviceCalls.ioctl(descriptor, CULVERT_TUNSETIFF, &request) < 0 ? -1 : descriptor
}

private let queueFlags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR

/// Hears what changes in the calling thread's namespace.
private struct TableEvents {
  private let socket = DeviceCalls.socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), NETLINK_ROUTE)

  init() {
    let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
    let address = KernelBytes {
      $0.add(UInt16(AF_NETLINK))
      $0.add(UInt16(0))
      $0.add(UInt32(0))
      $0.add(UInt32(groups))
    }
    precondition(DeviceCalls.bind(socket, address.bytes) == 0 && DeviceCalls.setNonBlocking(socket) == 0)
  }

  /// All since the last call. The kernel announces a change before it acknowledges it.
  func collect() -> [String] {
    var buffer = [UInt8](repeating: 0, count: 65536)
    var events: [String] = []
    while true {
      let got = DeviceCalls.receive(socket, into: &buffer)
      if got <= 0 { return events }
      for reply in NetlinkReply.split(buffer[..<got]) {
        let type = Int(reply.type)
        let sign = [RTM_NEWADDR, RTM_NEWROUTE].contains(type) ? "+" : "-"
        let length = reply.body.native(1, UInt8.self) ?? 0
        switch type {
        case RTM_NEWLINK:
          guard let mtu = reply.attributes(after: 16)[IFLA_MTU]?.native(0, UInt32.self) else { continue }
          events.append("link mtu \(mtu)")
        case RTM_NEWADDR, RTM_DELADDR:
          let address = reply.attributes(after: 8)[IFA_ADDRESS].flatMap(IPAddress.init(networkOrder:))
          events.append("\(sign)addr \(address.map(String.init(describing:)) ?? "?")/\(length)")
        case RTM_NEWROUTE, RTM_DELROUTE:
          let address = reply.attributes(after: 12)[Int(RTA_DST.rawValue)].flatMap(IPAddress.init(networkOrder:))
          events.append("\(sign)route \(address.map(String.init(describing:)) ?? "default")/\(length)")
        default: events.append("type \(type)")
        }
      }
    }
  }
}

@Suite(.enabled("needs root, /dev/net/tun and the tools ip and ethtool") { PrivateNetwork.isAvailable })
struct TunDeviceTests {
  // MARK: - Life and death

  @Test func deviceHasWhatWasConfiguredAndIsGoneAfterClose() async throws {
    try await PrivateNetwork.run { checks in
      let device = try TunDevice(
        interface(
          "cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16", "2001:db8:91::/48", "10.90.0.0/24"],
          mtu: 1380))
      checks.equal(device.name, "cv0")
      checks.equal(device.queues.count, 1)
      checks.equal(device.offloads, .all)
      checks.equal(device.refusedOffloads, [])
      let addresses = shell("ip -d addr show dev cv0")
      checks.contains(addresses, "mtu 1380")
      checks.contains(addresses, ",UP,")
      checks.contains(addresses, "inet 10.90.0.1/24")
      checks.contains(addresses, "inet6 2001:db8:90::1/64 scope global nodad")
      checks.lacks(addresses, "tentative")
      checks.lacks(addresses, "fe80")
      checks.contains(addresses, "tun type tun pi off vnet_hdr on persist off")
      let routes = shell("ip route show dev cv0; ip -6 route show dev cv0")
      checks.contains(routes, "10.90.0.0/24 proto kernel scope link src 10.90.0.1")
      checks.contains(routes, "10.91.0.0/16 proto static scope link")
      checks.contains(routes, "2001:db8:91::/48 proto static")
      checks.lacks(routes, "10.90.0.0/24 proto static")
      let features = shell("ethtool -k cv0")
      for feature in ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation"] {
        checks.contains(features, "\(feature): on")
      }
      checks.contains(shell("ip -d link show cv0"), "gso_max_size 65536")

      device.close()
      device.close()
      checks.contains(shell("ip link show cv0"), "does not exist")
      checks.equal(shell("ip route show; ip -6 route show"), "")
      checks.expect(fcntl(device.queues[0], F_GETFD) < 0, "the queue is still open")
    }
  }

  @Test func forgottenDeviceIsClosed() async throws {
    try await PrivateNetwork.run { checks in
      do {
        let device = try TunDevice(interface())
        checks.contains(shell("ip link show \(device.name)"), "cv0")
      }
      checks.contains(shell("ip link show cv0"), "does not exist")
    }
  }

  @Test func kernelCompletesTheName() async throws {
    try await PrivateNetwork.run { checks in
      let first = try TunDevice(interface("cv%d"), queues: 2)
      let second = try TunDevice(interface("cv%d", ["10.9.0.1/32"]))
      checks.equal([first.name, second.name], ["cv0", "cv1"])
      checks.equal(first.queues.count, 2)
      checks.contains(shell("ip addr show cv1"), "10.9.0.1/32")
    }
  }

  /// The whole start, not only the test; the best of several, because the machine has other work.
  @Test func startIsQuickAndLeavesTheQueueEmpty() async throws {
    try await PrivateNetwork.run { checks in
      var best = UInt64.max
      for _ in 0..<8 {
        let start = MonotonicTime.current()
        let device = try TunDevice(interface("cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16"]))
        best = min(best, MonotonicTime.current().nanoseconds(since: start))
        checks.equal(readAll(device), [])
        device.close()
      }
      print("TUN device started in \(best / 1000) µs")
      checks.expect(best < 50_000_000, "start took \(best) ns")
    }
  }

  @Test func nothingIsLeftWhenTheStartFails() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip link add veth0 type veth peer veth1; ip link set veth1 up; ip link set veth0 up; ip route add 10.91.0.0/16 dev veth0")
      let error = refusal {
        _ = try TunDevice(interface("cv0", ["10.90.0.1/24"], routes: ["10.92.0.0/16", "10.91.0.0/16"]))
      }
      checks.equal(error.errno, EEXIST)
      checks.contains("\(error)", "add route 10.91.0.0/16 to cv0")
      checks.contains("\(error)", "exists already (dev veth0)")
      checks.contains(shell("ip link show cv0"), "does not exist")
      checks.equal(shell("ip route"), "10.91.0.0/16 dev veth0 scope link \n")

      _ = shell("ip tuntap add dev cv0 mode tun; ip link set cv0 mtu 1450; ip addr add 10.80.0.1/24 dev cv0")
      let state = "ip -o addr show dev cv0; ip link show cv0; ip route"
      let was = shell(state)
      let again = refusal {
        _ = try TunDevice(interface("cv0", ["10.90.0.1/24"], routes: ["10.92.0.0/16", "10.91.0.0/16"]))
      }
      checks.equal(again.errno, EEXIST)
      checks.equal(shell(state), was)
    }
  }

  // MARK: - Offloads

  @Test func superpacketsOfASocketArriveWhole() async throws {
    try await PrivateNetwork.run { checks in
      let device = try TunDevice(interface("cv0", ["10.90.0.1/24"]))
      let whole = sendTrain(to: device, checks: &checks)
      checks.equal(whole, [28 + 3000])
      device.close()
      // Without the offload the kernel cuts: the check above can tell.
      let plain = try TunDevice(interface("cv0", ["10.90.0.1/24"], offloads: [.checksum, .tcp4, .tcp6]))
      checks.equal(plain.offloads, [.checksum, .tcp4, .tcp6])
      checks.equal(sendTrain(to: plain, checks: &checks), [1028, 1028, 1028])
    }
  }

  /// Lengths of all packets in the queue.
  private func readAll(_ device: TunDevice) -> [Int] {
    let pool = BufferPool(count: 1)
    var lengths: [Int] = []
    while true {
      let got = DeviceCalls.read(device.queues[0], into: pool.bytes(0))
      if got <= 0 { return lengths }
      lengths.append(got - VirtioNetHeader.length)
    }
  }

  /// Sends three datagrams of 1000 bytes with one call; the lengths of the packets that come out.
  private func sendTrain(to device: TunDevice, checks: inout Checks) -> [Int] {
    let socket = DeviceCalls.socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    defer { close(socket) }
    let pool = BufferPool(count: 1)
    let bytes = pool.bytes(0)
    let target = KernelBytes {
      $0.add(UInt16(AF_INET))
      $0.add(UInt16(9).bigEndian)
      $0.add(UInt32(0x0A5A_0002).bigEndian)
      $0.add(UInt64(0))
    }
    checks.equal(DeviceCalls.setOption(socket, Int32(CULVERT_SOL_UDP), Int32(CULVERT_UDP_SEGMENT), 1000), 0)
    checks.equal(DeviceCalls.send(socket, bytes.slice(0, 3000), to: target.bytes), 3000)
    var lengths: [Int] = []
    while true {
      let got = DeviceCalls.read(device.queues[0], into: bytes)
      if got <= 0 { return lengths }
      lengths.append(got - VirtioNetHeader.length)
      if got > 2000 {
        let header = VirtioNetHeader.parse(bytes)
        checks.equal(header?.offload.segmentation, .udp)
        checks.equal(header?.gsoSize, 1000)
      }
    }
  }

  /// The kernel takes the flags and cuts TCP superpackets all the same, for want of scatter-gather.
  @Test func offloadThatOnlySeemsToWorkIsSwitchedOff() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip tuntap add dev cv0 mode tun; ethtool -K cv0 sg off")
      let device = try TunDevice(interface("cv0", ["10.90.0.1/24"]))
      checks.equal(device.offloads, [.checksum, .udp4, .udp6])
      checks.equal(device.refusedOffloads, [.tcp4, .tcp6])
      let features = shell("ethtool -k cv0")
      checks.contains(features, "tx-tcp-segmentation: off\n")
      checks.contains(features, "tx-udp-segmentation: on")
      // The pieces are gone from the queue; what the kernel sends by itself on a device of others is short.
      checks.equal(sendTrain(to: device, checks: &checks).filter { $0 > 150 }, [3028])
    }
  }

  @Test func superpacketLimitBelowTheTestLeavesChecksumsOnly() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip tuntap add dev cv0 mode tun; ip link set cv0 gso_max_size 1000")
      let device = try TunDevice(interface("cv0"))
      checks.equal(device.offloads, .checksum)
      checks.equal(device.refusedOffloads, [.tcp4, .tcp6, .udp4, .udp6])
      checks.contains(shell("ethtool -k cv0"), "tx-udp-segmentation: off\n")
    }
  }

  @Test(arguments: [
    ([], []), ([.checksum], [.checksum]), ([.checksum, .tcp4], [.checksum, .tcp4]),
    ([.checksum, .tcp6], [.checksum, .tcp6]),
    ([.checksum, .udp4, .udp6], [.checksum, .udp4, .udp6]),
    // The kernel couples the two, and knows nothing without checksums.
    ([.checksum, .tcp4, .udp4], [.checksum, .tcp4]), ([.tcp4], []),
  ] as [(TunOffloads, TunOffloads)])
  func asManyOffloadsAsTheKernelTakes(_ wanted: TunOffloads, _ expected: TunOffloads) async throws {
    try await PrivateNetwork.run { checks in
      let device = try TunDevice(interface("cv0", offloads: wanted))
      checks.equal(device.offloads, expected)
      checks.equal(device.refusedOffloads, wanted.subtracting(expected))
    }
  }

  @Test func kernelIsTakenAtItsWordWithoutPacketSockets() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip tuntap add dev cv0 mode tun; ethtool -K cv0 sg off")
      checks.equal(culvert_thread_drop_capability(CAP_NET_RAW), 0)
      checks.equal(DeviceCalls.socket(AF_PACKET, Int32(SOCK_RAW.rawValue), 0), -EPERM)
      checks.equal(try TunDevice(interface("cv0")).offloads, .all)
    }
  }

  @Test func selfTestWorksOverSeveralQueues() async throws {
    try await PrivateNetwork.run { checks in
      let device = try TunDevice(interface("cv0", ["10.90.0.1/24"]), queues: 4)
      checks.equal(device.queues.count, 4)
      checks.equal(device.offloads, .all)
      let pool = BufferPool(count: 1)
      for queue in device.queues { checks.equal(DeviceCalls.read(queue, into: pool.bytes(0)), -Int(EAGAIN)) }
      device.close()
      checks.contains(shell("ip link show cv0"), "does not exist")
    }
  }

  /// What we write to the kernel is dropped before a firewall or a socket could see it, and nothing is answered.
  @Test func selfTestIsNotAnswered() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip link set lo up; ip tuntap add dev cv0 mode tun; ip addr add 10.90.0.1/24 dev cv0; ip link set cv0 up")
      let device = try TunDevice(interface("cv0"))
      checks.equal(device.offloads, .all)
      let received = shell("awk '/^Tcp: [0-9]/ { print $11, $15 } /^Udp: [0-9]/ { print $2, $3 }' /proc/net/snmp")
      checks.equal(received, "0 0\n0 0\n")
      checks.equal(shell("awk '/^Udp6(InDatagrams|NoPorts)/ { print $2 }' /proc/net/snmp6"), "0\n0\n")
      // They did come in: one for each kind.
      checks.equal(shell("awk '/^Ip6InReceives/ { r = $2 } /^Ip6InDelivers/ { print r, $2 }' /proc/net/snmp6"), "2 0\n")
      checks.equal(shell("awk '/^Ip: [0-9]/ { print $4, $10 }' /proc/net/snmp"), "3 0\n")
      checks.expect(readAll(device).allSatisfy { $0 < 150 }, "something large was left in the queue")
    }
  }

  // MARK: - Changes

  @Test func applyTouchesOnlyWhatChanged() async throws {
    try await PrivateNetwork.run { checks in
      let device = try TunDevice(
        interface(
          "cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16", "10.92.0.0/16", "2001:db8:91::/48"]))
      // The kernel is not quite done with the IPv6 address.
      usleep(300_000)
      let events = TableEvents()
      try device.apply(
        interface(
          "cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16", "10.92.0.0/16", "2001:db8:91::/48"]))
      checks.equal(events.collect(), [])

      try device.apply(
        interface(
          "cv0", ["10.90.0.1/24", "10.93.0.1/24", "2001:db8:90::1/64"],
          routes: ["10.91.0.0/16", "10.94.0.0/16", "2001:db8:91::/48"], mtu: 1300))
      let seen = events.collect()
      for wanted in ["link mtu 1300", "+addr 10.93.0.1/24", "+route 10.94.0.0/16", "-route 10.92.0.0/16"] {
        checks.expect(seen.contains(wanted), "no \(wanted) in \(seen)")
      }
      let expected: Set = [
        "link mtu 1300", "+addr 10.93.0.1/24", "+route 10.94.0.0/16", "-route 10.92.0.0/16",
        // What the kernel makes of the address.
        "+route 10.93.0.0/24", "+route 10.93.0.1/32", "+route 10.93.0.255/32",
      ]
      checks.equal(Set(seen).subtracting(expected), [])
      let routes = shell("ip route show dev cv0")
      for route in ["10.90.0.0/24", "10.91.0.0/16", "10.93.0.0/24", "10.94.0.0/16"] { checks.contains(routes, route) }
      checks.lacks(routes, "10.92.0.0/16")
    }
  }

  @Test func everyAddressMayBeExchanged() async throws {
    try await PrivateNetwork.run { checks in
      let device = try TunDevice(
        interface("cv0", ["10.90.0.1/24", "10.90.0.2/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16"]))
      // The primary address goes, the secondary stays; an IPv6 prefix length changes.
      try device.apply(interface("cv0", ["10.90.0.2/24", "2001:db8:90::1/48"], routes: ["10.91.0.0/16"]))
      var addresses = shell("ip addr show dev cv0")
      checks.lacks(addresses, "10.90.0.1/")
      checks.contains(addresses, "10.90.0.2/24")
      checks.contains(addresses, "2001:db8:90::1/48")
      checks.lacks(addresses, "2001:db8:90::1/64")
      checks.contains(shell("ip route show dev cv0"), "10.91.0.0/16")

      // The on-link prefix of an address becomes a route, and the other way round.
      try device.apply(interface("cv0", ["10.91.0.1/16"], routes: ["10.90.0.0/24"]))
      let routes = shell("ip route show dev cv0")
      checks.contains(routes, "10.90.0.0/24 proto static")
      checks.contains(routes, "10.91.0.0/16 proto kernel")
      checks.lacks(routes, "10.91.0.0/16 proto static")

      // With the last IPv4 address the kernel takes the routes; they are wanted still.
      try device.apply(interface("cv0", [], routes: ["10.90.0.0/24"]))
      addresses = shell("ip addr show dev cv0")
      checks.lacks(addresses, "inet ")
      checks.contains(shell("ip route show dev cv0"), "10.90.0.0/24 proto static")

      try device.apply(interface("cv0"))
      checks.equal(shell("ip route show dev cv0"), "")
    }
  }

  @Test func smallMTUEndsIPv6AndALargerOneBringsItBack() async throws {
    try await PrivateNetwork.run { checks in
      let both = interface("cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["2001:db8:91::/48"])
      let device = try TunDevice(both)
      try device.apply(interface("cv0", ["10.90.0.1/24"], mtu: 600))
      checks.lacks(shell("ip addr show dev cv0"), "inet6")
      try device.apply(both)
      checks.contains(shell("ip addr show dev cv0"), "inet6 2001:db8:90::1/64")
      checks.contains(shell("ip -6 route show dev cv0"), "2001:db8:91::/48")
    }
  }

  @Test func refusedChangeIsUndone() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip link add veth0 type veth peer veth1; ip link set veth1 up; ip link set veth0 up; ip route add 10.99.0.0/16 dev veth0")
      _ = shell("ip addr add 10.98.0.1/24 dev veth0")
      let before = interface("cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16"])
      let device = try TunDevice(before)
      let state = "ip -o addr show dev cv0 | sort; ip route show dev cv0 | sort; ip -6 route show dev cv0; ip link show cv0"
      let was = shell(state)

      let taken = refusal { try device.apply(interface("cv0", ["10.98.0.1/32"], mtu: 1300)) }
      checks.equal(taken.errno, EADDRINUSE)
      checks.contains("\(taken)", "already taken by veth0")
      checks.equal(shell(state), was)

      let exists = refusal {
        try device.apply(
          interface("cv0", ["10.95.0.1/24", "2001:db8:90::1/56"], routes: ["10.96.0.0/16", "10.99.0.0/16"], mtu: 1300))
      }
      checks.equal(exists.errno, EEXIST)
      checks.equal(shell(state), was)

      let fixed = refusal { try device.apply(interface("cv1")) }
      checks.contains("\(fixed)", "only addresses, routes and MTU may change")
      device.close()
      checks.contains("\(refusal { try device.apply(before) })", "it is closed")
    }
  }

  @Test func thousandsOfRoutes() async throws {
    try await PrivateNetwork.run { checks in
      let many = (0..<4000).map { "10.\(100 + $0 / 256).\($0 % 256).0/24" } + (0..<1000).map { "2001:db8:\(String($0, radix: 16))::/48" }
      let device = try TunDevice(interface("cv0", ["10.90.0.1/24"], routes: many))
      checks.equal(shell("ip route show dev cv0 proto static | wc -l"), "4000\n")
      checks.equal(shell("ip -6 route show dev cv0 proto static | wc -l"), "1000\n")
      try device.apply(interface("cv0", ["10.90.0.1/24"], routes: Array(many.dropFirst(100).dropLast(100))))
      checks.equal(shell("ip route show dev cv0 proto static | wc -l"), "3900\n")
      checks.equal(shell("ip -6 route show dev cv0 proto static | wc -l"), "900\n")
    }
  }

  // MARK: - Devices of others

  @Test func persistentDeviceIsLeftAsItWasFound() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip tuntap add dev cv0 mode tun; ip addr add 10.80.0.1/24 dev cv0; ip link set cv0 mtu 1450 up")
      _ = shell("ip route add 10.81.0.0/16 dev cv0")
      let state = "ip -o addr show dev cv0 | grep -v fe80; ip -d link show cv0 | grep mtu; ip route; ip -6 route | grep -v fe80"
      let was = shell(state)
      let device = try TunDevice(
        interface(
          "cv0", ["10.80.0.1/24", "10.90.0.1/24", "2001:db8:90::1/64"],
          routes: ["10.81.0.0/16", "10.91.0.0/16", "2001:db8:91::/48"]))
      checks.contains(shell("ip addr show dev cv0"), "10.90.0.1/24")
      // What others put there is not ours to remove.
      try device.apply(interface("cv0", ["10.90.0.1/24"], routes: ["10.91.0.0/16"], mtu: 1300))
      checks.contains(shell("ip addr show dev cv0"), "10.80.0.1/24")
      checks.contains(shell("ip route"), "10.81.0.0/16")
      device.close()
      checks.equal(shell(state).replacing("NO-CARRIER,", with: ""), was.replacing("NO-CARRIER,", with: ""))

      _ = shell("ip link set cv0 down")
      try TunDevice(interface("cv0", ["10.90.0.1/24"], routes: ["10.91.0.0/16"])).close()
      checks.lacks(shell("ip addr show dev cv0"), "10.90.0.1")
      checks.lacks(shell("ip link show dev cv0"), ",UP")
    }
  }

  @Test func persistentDeviceTellsHowManyQueuesItHas() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip tuntap add dev one mode tun; ip tuntap add dev many mode tun multi_queue")
      let error = refusal { _ = try TunDevice(interface("one"), queues: 2) }
      checks.contains("\(error)", "multi_queue")
      // One queue of a device that could have more.
      let device = try TunDevice(interface("many"))
      checks.equal(device.offloads, .all)
      checks.equal(refusal { _ = try TunDevice(interface("many")) }.errno, EBUSY)
    }
  }

  @Test func descriptorIsTakenOverAndStaysTheCallers() async throws {
    try await PrivateNetwork.run { checks in
      let given = openQueue("cv7", queueFlags)
      var configuration = interface("", ["10.90.0.1/24"], routes: ["10.91.0.0/16"])
      configuration.source = .descriptor(given)
      let device = try TunDevice(configuration)
      checks.equal(device.name, "cv7")
      checks.equal(device.offloads, .all)
      checks.contains(shell("ip addr show dev cv7"), "10.90.0.1/24")
      checks.equal(sendTrain(to: device, checks: &checks), [3028])
      device.close()
      checks.expect(fcntl(given, F_GETFD) >= 0, "the caller's descriptor was closed")
      checks.lacks(shell("ip addr show dev cv7"), "10.90.0.1/24")
      checks.lacks(shell("ip link show dev cv7"), ",UP")
      close(given)
      checks.contains(shell("ip link show cv7"), "does not exist")
    }
  }

  @Test func descriptorsThatWillNotDoAreRefused() async throws {
    try await PrivateNetwork.run { checks in
      func refused(_ descriptor: Int32, queues: Int = 1) -> String {
        var configuration = interface("")
        configuration.source = .descriptor(descriptor)
        return "\(refusal { _ = try TunDevice(configuration, queues: queues) })"
      }
      checks.contains(refused(openQueue("cv1", IFF_TUN | IFF_NO_PI)), "device cv1 lacks IFF_VNET_HDR")
      checks.contains(refused(openQueue("cv2", IFF_TUN)), "device cv2 lacks IFF_NO_PI and IFF_VNET_HDR")
      checks.contains(refused(openQueue("cv3", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)), "device cv3 lacks IFF_TUN")
      checks.contains(refused(openQueue("cv4", queueFlags), queues: 2), "IFF_MULTI_QUEUE")
      checks.contains(refused(DeviceCalls.open("/dev/net/tun", O_RDWR)), "not an attached queue")
      checks.contains(refused(DeviceCalls.open("/dev/null", O_RDWR)), "not an attached queue")
      checks.contains(refused(9999), "Bad file descriptor")

      let elsewhere = openQueue("cv5", queueFlags)
      checks.equal(culvert_unshare(CLONE_NEWNET), 0)
      // A device of the same name must not be mistaken for it.
      _ = shell("ip tuntap add dev cv5 mode tun")
      checks.contains(refused(elsewhere), "another network namespace")
    }
  }

  @Test func descriptorOfAMultiQueueDeviceBringsMoreQueues() async throws {
    try await PrivateNetwork.run { checks in
      var configuration = interface("")
      configuration.source = .descriptor(openQueue("cv7", queueFlags | IFF_MULTI_QUEUE))
      let device = try TunDevice(configuration, queues: 2)
      checks.equal(device.queues.count, 2)
      checks.equal(device.offloads, .all)
    }
  }

  @Test func deviceThatWasSetUpBeforehandNeedsNoPrivilege() async throws {
    try await PrivateNetwork.run { checks in
      var configuration = interface("", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16"])
      configuration.source = .descriptor(openQueue("cv7", queueFlags))
      _ = shell("ip addr add 10.90.0.1/24 dev cv7; ip addr add 2001:db8:90::1/64 dev cv7; ip link set cv7 mtu 1400 up")
      _ = shell("ip route add 10.91.0.0/16 dev cv7")
      checks.equal(culvert_thread_setuid(65534), 0)
      let device = try TunDevice(configuration)
      checks.equal(device.offloads, .all)
      configuration.addresses.append(address("10.99.0.1/32"))
      let error = refusal { try device.apply(configuration) }
      checks.equal(error.errno, EPERM)
      checks.contains("\(error)", "CAP_NET_ADMIN")
    }
  }

  // MARK: - Refusals

  @Test func deviceInUseIsWaitedFor() async throws {
    try await PrivateNetwork.run { checks in
      let other = try TunDevice(interface())
      let start = MonotonicTime.current()
      let error = refusal { _ = try TunDevice(interface()) }
      checks.equal(error.errno, EBUSY)
      checks.contains("\(error)", "another process uses the device")
      let waited = MonotonicTime.current().nanoseconds(since: start)
      checks.expect(waited > 900_000_000 && waited < 3_000_000_000, "waited \(waited) ns")

      // Held by a process that lets go soon.
      other.close()
      let holder = openQueue("cv0", queueFlags)
      var thread = pthread_t()
      pthread_create(
        &thread, nil,
        { context in
          usleep(300_000)
          close(Int32(Int(bitPattern: context)))
          return nil
        }, UnsafeMutableRawPointer(bitPattern: Int(holder)))
      let device = try TunDevice(interface("cv0", ["10.90.0.1/24"]))
      pthread_join(thread, nil)
      checks.equal(device.name, "cv0")
      checks.contains(shell("ip addr show dev cv0"), "10.90.0.1/24")
    }
  }

  @Test func badInputIsRefusedWithARemedy() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip link add veth0 type veth peer veth1; ip addr add 10.98.0.1/24 dev veth0; ip tuntap add dev tap0 mode tap")
      func refused(_ configuration: InterfaceConfiguration) -> String {
        "\(refusal { _ = try TunDevice(configuration) })"
      }
      checks.contains(refused(interface("")), "1 to 15 printable characters")
      checks.contains(refused(interface("a-name-of-16-char")), "1 to 15 printable characters")
      checks.contains(refused(interface("a b")), "1 to 15 printable characters")
      checks.contains(refused(interface("%s")), "choose another")
      checks.contains(refused(interface("veth0")), "not a TUN device")
      checks.contains(refused(interface("tap0")), "not a TUN device")
      checks.contains(refused(interface("cv0", ["10.98.0.1/32"])), "already taken by veth0")
      checks.contains(refused(interface("cv0", ["10.1.0.1/24", "10.1.0.1/32"])), "listed twice")
      checks.contains(refused(interface("cv0", ["10.1.0.1/33"])), "0 to 32")
      checks.contains(refused(interface("cv0", mtu: 575)), "choose 576 to 65535")
      checks.contains(refused(interface("cv0", mtu: 65536)), "choose 576 to 65535")
      checks.contains(refused(interface("cv0", routes: ["2001:db8::/32"], mtu: 1279)), "IPv6 needs 1280")
      checks.equal(shell("ip -o link show type tun | grep -c cv0"), "0\n")
      _ = shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
      checks.contains(refused(interface("cv0", ["2001:db8::1/64"])), "disable_ipv6")
      checks.equal(shell("ip -o link show type tun | grep -c cv0"), "0\n")
      for mtu in [576, 65535] {
        let device = try TunDevice(interface("cv0", ["10.1.0.1/24"], mtu: mtu))
        checks.contains(shell("ip link show cv0"), "mtu \(mtu) ")
        device.close()
      }
    }
  }

  @Test func missingPrivilegeAndMissingDeviceAreExplained() async throws {
    try await PrivateNetwork.run { checks in
      checks.equal(culvert_unshare(CLONE_NEWNS), 0)
      _ = shell("mount --make-rprivate / && mount -t tmpfs none /dev/net")
      let missing = refusal { _ = try TunDevice(interface()) }
      checks.equal(missing.errno, ENOENT)
      checks.contains("\(missing)", "modprobe tun")
      checks.contains("\(missing)", "give the container the device")
      _ = shell("mknod /dev/net/tun c 10 200; chmod 666 /dev/net/tun")
      checks.equal(culvert_thread_setuid(65534), 0)
      let forbidden = refusal { _ = try TunDevice(interface()) }
      checks.equal(forbidden.errno, EPERM)
      checks.contains("\(forbidden)", "run as root or with CAP_NET_ADMIN, or hand over a TUN descriptor")
    }
  }
}
