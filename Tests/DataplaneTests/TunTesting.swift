import CLinux
import Glibc
import PacketIO
import Testing

@testable import Dataplane

/// What the tests of TUN devices share. Their bodies run in a `PrivateNetwork`.
protocol TunTesting {}

extension TunTesting {
  func shell(_ command: String) -> String { PrivateNetwork.shell(command) }

  func address(_ text: String) -> InterfaceAddress {
    let parts = text.split(separator: "/")
    return InterfaceAddress(IPAddress(String(parts[0]))!, prefixLength: Int(parts[1])!)
  }

  func interface(
    _ name: String = "cv0", _ addresses: [String] = [], routes: [String] = [], mtu: Int = 1400,
    offloads: TunOffloads = .all
  ) -> InterfaceConfiguration {
    InterfaceConfiguration(
      source: .name(name), addresses: addresses.map(address), routes: routes.map { Prefix($0)! }, mtu: mtu,
      offloads: offloads)
  }

  /// The `SystemError` that `body` throws.
  func refusal(_ body: () throws -> Void) -> SystemError {
    do { try body() } catch { return error as? SystemError ?? SystemError("not a SystemError: \(error)", errno: 0) }
    return SystemError("nothing was refused", errno: 0)
  }

  /// Whether there is no such interface, or not for long: a child process of another test, between its birth and its
  /// program, holds copies of all descriptors.
  func isGone(_ name: String) -> Bool {
    for _ in 0..<50 {
      if shell("ip link show \(name)").contains("does not exist") { return true }
      usleep(20_000)
    }
    return false
  }

  /// Opens a queue as an embedder would, to hand it over.
  func openQueue(_ name: String, _ flags: Int32) -> Int32 {
    let descriptor = DeviceCalls.open("/dev/net/tun", O_RDWR)
    var request = [UInt8](repeating: 0, count: DeviceCalls.ioctlArgumentLength)
    for (position, byte) in name.utf8.enumerated() { request[position] = byte }
    request[16] = UInt8(truncatingIfNeeded: flags)
    request[17] = UInt8(truncatingIfNeeded: flags >> 8)
    return DeviceCalls.ioctl(descriptor, CULVERT_TUNSETIFF, &request) < 0 ? -1 : descriptor
  }

  /// What a queue must be opened with.
  var queueFlags: Int32 { IFF_TUN | IFF_NO_PI | IFF_VNET_HDR }

  /// Lengths of all packets in the queue.
  func readAll(_ device: TunDevice) -> [Int] {
    let pool = BufferPool(count: 1)
    var lengths: [Int] = []
    while true {
      let got = DeviceCalls.read(device.queues[0], into: pool.bytes(0))
      if got <= 0 { return lengths }
      lengths.append(got - VirtioNetHeader.length)
    }
  }

  /// Sends three datagrams of 1000 bytes with one call; the lengths of the packets that come out.
  func sendTrain(to device: TunDevice, checks: inout Checks) -> [Int] {
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
}

/// Hears what changes in the calling thread's namespace.
struct TableEvents {
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
