import CLinux
import Glibc
import PacketIO
import Testing

@testable import Dataplane

/// Addresses, routes and MTU change as a whole or not at all, and what cannot be is refused.
@Suite(.enabled("needs root, /dev/net/tun and the tools ip and ethtool") { PrivateNetwork.isAvailable })
struct TunSettingsTests: TunTesting {
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
      _ = shell(
        "ip link add veth0 type veth peer veth1; ip link set veth1 up; ip link set veth0 up; ip route add 10.99.0.0/16 dev veth0"
      )
      _ = shell("ip addr add 10.98.0.1/24 dev veth0")
      let before = interface("cv0", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16"])
      let device = try TunDevice(before)
      let state =
        "ip -o addr show dev cv0 | sort; ip route show dev cv0 | sort; ip -6 route show dev cv0; ip link show cv0"
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
      let many =
        (0..<4000).map { "10.\(100 + $0 / 256).\($0 % 256).0/24" }
        + (0..<1000).map { "2001:db8:\(String($0, radix: 16))::/48" }
      let device = try TunDevice(interface("cv0", ["10.90.0.1/24"], routes: many))
      checks.equal(shell("ip route show dev cv0 proto static | wc -l"), "4000\n")
      checks.equal(shell("ip -6 route show dev cv0 proto static | wc -l"), "1000\n")
      try device.apply(interface("cv0", ["10.90.0.1/24"], routes: Array(many.dropFirst(100).dropLast(100))))
      checks.equal(shell("ip route show dev cv0 proto static | wc -l"), "3900\n")
      checks.equal(shell("ip -6 route show dev cv0 proto static | wc -l"), "900\n")
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
      _ = shell(
        "ip link add veth0 type veth peer veth1; ip addr add 10.98.0.1/24 dev veth0; ip tuntap add dev tap0 mode tap")
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
      checks.expect(isGone("cv0"), "cv0 is still there")
      _ = shell("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
      checks.contains(refused(interface("cv0", ["2001:db8::1/64"])), "disable_ipv6")
      checks.expect(isGone("cv0"), "cv0 is still there")
      for mtu in [576, 65535] {
        let device = try TunDevice(interface("cv0", ["10.1.0.1/24"], mtu: mtu))
        checks.contains(shell("ip link show cv0"), "mtu \(mtu) ")
        device.close()
      }
    }
  }

  @Test func missingPrivilegeAndMissingDeviceAreExplained() async throws {
    try await PrivateNetwork.run { checks in
      checks.equal(culvert_thread_drop_capability(CAP_NET_ADMIN), 0)
      let forbidden = refusal { _ = try TunDevice(interface()) }
      checks.equal(forbidden.errno, EPERM)
      checks.contains("\(forbidden)", "run as root or with CAP_NET_ADMIN, or hand over a TUN descriptor")

      checks.equal(culvert_unshare(CLONE_NEWNS), 0)
      _ = shell("mount --make-rprivate / && mount -t tmpfs none /dev/net")
      let missing = refusal { _ = try TunDevice(interface()) }
      checks.equal(missing.errno, ENOENT)
      checks.contains("\(missing)", "modprobe tun")
      checks.contains("\(missing)", "give the container the device")
    }
  }
}
