import CLinux
import Glibc
import PacketIO
import Testing

@testable import Dataplane

/// Devices come with what they shall have, and go.
@Suite(.enabled("needs root, /dev/net/tun and the tools ip and ethtool") { PrivateNetwork.isAvailable })
struct TunDeviceTests: TunTesting {
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
      checks.expect(isGone("cv0"), "cv0 is still there")
      checks.equal(shell("ip route show; ip -6 route show"), "")
    }
  }

  @Test func forgottenDeviceIsClosed() async throws {
    try await PrivateNetwork.run { checks in
      do {
        let device = try TunDevice(interface())
        checks.contains(shell("ip link show \(device.name)"), "cv0")
      }
      checks.expect(isGone("cv0"), "cv0 is still there")
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
      _ = shell(
        "ip link add veth0 type veth peer veth1; ip link set veth1 up; ip link set veth0 up; ip route add 10.91.0.0/16 dev veth0"
      )
      let error = refusal {
        _ = try TunDevice(interface("cv0", ["10.90.0.1/24"], routes: ["10.92.0.0/16", "10.91.0.0/16"]))
      }
      checks.equal(error.errno, EEXIST)
      checks.contains("\(error)", "add route 10.91.0.0/16 to cv0")
      checks.contains("\(error)", "exists already (dev veth0)")
      checks.expect(isGone("cv0"), "cv0 is still there")
      checks.equal(shell("ip route"), "10.91.0.0/16 dev veth0 scope link \n")

      _ = shell("ip tuntap add dev cv0 mode tun; ip link set cv0 mtu 1450; ip addr add 10.80.0.1/24 dev cv0")
      let state = "ip -o addr show dev cv0; ip -o link show cv0 | grep -o '<.*> mtu [0-9]*'; ip route"
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

  @Test(
    arguments: [
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
      checks.expect(isGone("cv0"), "cv0 is still there")
    }
  }

  /// What we write to the kernel is dropped before a firewall or a socket could see it, and nothing is answered.
  @Test func selfTestIsNotAnswered() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell(
        "ip link set lo up; ip tuntap add dev cv0 mode tun; ip addr add 10.90.0.1/24 dev cv0; ip link set cv0 up")
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
}
