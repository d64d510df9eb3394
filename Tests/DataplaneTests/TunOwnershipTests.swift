import CLinux
import Glibc
import PacketIO
import Testing

@testable import Dataplane

/// Devices that somebody else made stay theirs.
@Suite(.enabled("needs root, /dev/net/tun and the tools ip and ethtool") { PrivateNetwork.isAvailable })
struct TunOwnershipTests: TunTesting {
  @Test func persistentDeviceIsLeftAsItWasFound() async throws {
    try await PrivateNetwork.run { checks in
      _ = shell("ip tuntap add dev cv0 mode tun; ip addr add 10.80.0.1/24 dev cv0; ip link set cv0 mtu 1450 up")
      _ = shell("ip route add 10.81.0.0/16 dev cv0")
      let state =
        "ip -o addr show dev cv0 | grep -v fe80; ip -d link show cv0 | grep mtu; ip route; ip -6 route | grep -v fe80"
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
      checks.equal(sendTrain(to: device, checks: &checks).filter { $0 > 150 }, [3028])
      device.close()
      checks.expect(fcntl(given, F_GETFD) >= 0, "the caller's descriptor was closed")
      checks.lacks(shell("ip addr show dev cv7"), "10.90.0.1/24")
      checks.lacks(shell("ip link show dev cv7"), ",UP")
      close(given)
      checks.expect(isGone("cv7"), "cv7 is still there")
    }
  }

  @Test func descriptorsThatWillNotDoAreRefused() async throws {
    try await PrivateNetwork.run { checks in
      func refused(_ descriptor: Int32, queues: Int = 1) -> String {
        var configuration = interface("")
        configuration.source = .descriptor(descriptor)
        defer { close(descriptor) }
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
      let given = openQueue("cv7", queueFlags | IFF_MULTI_QUEUE)
      defer { close(given) }
      configuration.source = .descriptor(given)
      let device = try TunDevice(configuration, queues: 2)
      checks.equal(device.queues.count, 2)
      checks.equal(device.offloads, .all)
    }
  }

  @Test func deviceThatWasSetUpBeforehandNeedsNoPrivilege() async throws {
    try await PrivateNetwork.run { checks in
      var configuration = interface("", ["10.90.0.1/24", "2001:db8:90::1/64"], routes: ["10.91.0.0/16"])
      let given = openQueue("cv7", queueFlags)
      defer { close(given) }
      configuration.source = .descriptor(given)
      _ = shell("ip addr add 10.90.0.1/24 dev cv7; ip addr add 2001:db8:90::1/64 dev cv7; ip link set cv7 mtu 1400 up")
      _ = shell("ip route add 10.91.0.0/16 dev cv7")
      for capability in [CAP_NET_ADMIN, CAP_NET_RAW] {
        checks.equal(culvert_thread_drop_capability(capability), 0)
      }
      let device = try TunDevice(configuration)
      checks.equal(device.offloads, .all)
      configuration.addresses.append(address("10.99.0.1/32"))
      let error = refusal { try device.apply(configuration) }
      checks.equal(error.errno, EPERM)
      checks.contains("\(error)", "CAP_NET_ADMIN")
    }
  }
}
