import CLinux
import Glibc
import PacketIO

/// Open queues of one TUN device: IP packets without a frame, each behind a `VirtioNetHeader`.
struct TunQueues {
  let name: String
  let index: Int32
  let descriptors: [Int32]
  /// The device exists because of these descriptors, and goes with them.
  let isCreated: Bool

  /// How long to wait for another process to let go of the device. A process that used io_uring may be gone for
  /// a moment before the kernel has closed its files.
  private static let patience: UInt64 = 1_000_000_000

  static func open(
    _ source: InterfaceConfiguration.Source, count: Int, netlink: Netlink
  ) throws(SystemError) -> TunQueues {
    precondition(count >= 1)
    let queues =
      switch source {
      case .name(let name): try open(name: name, count: count, netlink: netlink)
      case .descriptor(let descriptor): try takeOver(descriptor, count: count, netlink: netlink)
      }
    do {
      try queues.prepare()
    } catch {
      queues.close()
      throw error
    }
    return queues
  }

  func close() {
    for descriptor in descriptors { Glibc.close(descriptor) }
  }

  /// Settles what all queues share, and that none of them blocks.
  private func prepare() throws(SystemError) {
    var size = KernelBytes { $0.add(Int32(VirtioNetHeader.length)) }.padded()
    let status = DeviceCalls.ioctl(descriptors[0], CULVERT_TUNSETVNETHDRSZ, &size)
    guard status >= 0 else {
      throw SystemError("set the header length of TUN device \(name)", errno: -status, remedy: TunQueues.kernelRemedy)
    }
    for descriptor in descriptors {
      let status = DeviceCalls.setNonBlocking(descriptor)
      guard status >= 0 else { throw SystemError("make TUN device \(name) non-blocking", errno: -status) }
    }
  }

  private static let kernelRemedy = "a Linux kernel of version 5.15 or newer is needed"
}

// MARK: - By name

extension TunQueues {
  private static func open(name: String, count: Int, netlink: Netlink) throws(SystemError) -> TunQueues {
    guard (1...15).contains(name.utf8.count), name != ".", name != "..",
      name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") })
    else {
      throw SystemError(
        "open TUN device \"\(name)\"", errno: EINVAL,
        remedy: "a device name has 1 to 15 printable characters, none of them \"/\" or \":\" or a space")
    }
    let start = MonotonicTime.current()
    while true {
      do {
        return try attach(name, count, netlink)
      } catch {
        guard error.errno == EBUSY, MonotonicTime.current().nanoseconds(since: start) < patience else { throw error }
        usleep(20_000)
      }
    }
  }

  /// One attempt; fails with `EBUSY` while somebody else has the device.
  private static func attach(_ name: String, _ count: Int, _ netlink: Netlink) throws(SystemError) -> TunQueues {
    let operation = "open TUN device \(name)"
    let existing: Netlink.Link?
    do { existing = try netlink.link(named: name) } catch {
      throw error.explained("look for interface \(name)", remedy: nil)
    }
    var isMultiQueue = count > 1
    if let existing {
      guard existing.kind == "tun", existing.tun?.isEthernet != true else {
        throw SystemError(
          operation, errno: EEXIST,
          remedy: "an interface of that name exists and is not a TUN device: choose another name")
      }
      if let tun = existing.tun {
        if !tun.isPersistent || tun.attachedQueues > 0 { throw inUse(operation) }
        if isMultiQueue && !tun.isMultiQueue {
          throw SystemError(
            operation, errno: EINVAL,
            remedy: "it has a single queue: use one worker, or make it anew"
              + " (ip tuntap add \(name) mode tun multi_queue)")
        }
        isMultiQueue = tun.isMultiQueue
      }
    }
    let first = try openQueue(name, isMultiQueue, operation)
    var descriptors = [first.descriptor]
    do {
      while descriptors.count < count {
        descriptors.append(try openQueue(first.name, isMultiQueue, operation).descriptor)
      }
      let link = try findLink(first.name, netlink)
      return TunQueues(name: first.name, index: link.index, descriptors: descriptors, isCreated: existing == nil)
    } catch {
      for descriptor in descriptors { Glibc.close(descriptor) }
      throw error
    }
  }

  private static func inUse(_ operation: String) -> SystemError {
    SystemError(operation, errno: EBUSY, remedy: "another process uses the device: stop it, or choose another name")
  }

  /// Attaches one more queue to the device of that name, or creates it. The kernel completes "%d" in a name.
  private static func openQueue(
    _ name: String, _ isMultiQueue: Bool, _ operation: String
  ) throws(SystemError) -> (descriptor: Int32, name: String) {
    let descriptor = DeviceCalls.open("/dev/net/tun", O_RDWR | O_NONBLOCK)
    guard descriptor >= 0 else {
      let remedy =
        switch -descriptor {
        case ENOENT, ENODEV, ENXIO:
          "load the tun module (modprobe tun), or give the container the device /dev/net/tun"
        case EPERM, EACCES: privilegeRemedy + "; a container must be given the device"
        default: nil as String?
        }
      throw SystemError("open /dev/net/tun", errno: -descriptor, remedy: remedy)
    }
    var request = InterfaceRequest(
      name: name, flags: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (isMultiQueue ? IFF_MULTI_QUEUE : 0))
    let status = request.perform(CULVERT_TUNSETIFF, on: descriptor)
    guard status >= 0 else {
      Glibc.close(descriptor)
      switch -status {
      case EBUSY: throw inUse(operation)
      case EPERM: throw SystemError(operation, errno: EPERM, remedy: privilegeRemedy)
      case E2BIG: throw SystemError(operation, errno: E2BIG, remedy: "the device has no more queues: use fewer workers")
      case EINVAL:
        throw SystemError(operation, errno: EINVAL, remedy: "the kernel does not take this name: choose another")
      default: throw SystemError(operation, errno: -status)
      }
    }
    return (descriptor, request.name)
  }

  private static let privilegeRemedy = "run as root or with CAP_NET_ADMIN, or hand over a TUN descriptor"

  private static func findLink(_ name: String, _ netlink: Netlink) throws(SystemError) -> Netlink.Link {
    let found: Netlink.Link?
    do { found = try netlink.link(named: name) } catch {
      throw error.explained("look for interface \(name)", remedy: nil)
    }
    guard let found else {
      throw SystemError(
        "look for TUN device \(name)", errno: ENODEV,
        remedy: "it lies in another network namespace, or was removed: start the gateway in its namespace")
    }
    return found
  }
}

// MARK: - By descriptor

extension TunQueues {
  /// Duplicates a queue that somebody else opened. The caller keeps, and closes, its own descriptor; the device is
  /// the caller's and stays.
  private static func takeOver(_ given: Int32, count: Int, netlink: Netlink) throws(SystemError) -> TunQueues {
    let operation = "take over TUN descriptor \(given)"
    let required = "set it up with TUNSETIFF and the flags IFF_TUN | IFF_NO_PI | IFF_VNET_HDR"
    let descriptor = DeviceCalls.duplicate(given)
    guard descriptor >= 0 else {
      throw SystemError(operation, errno: -descriptor, remedy: "hand over an open descriptor of /dev/net/tun")
    }
    var descriptors = [descriptor]
    do throws(SystemError) {
      var request = InterfaceRequest()
      let status = request.perform(CULVERT_TUNGETIFF, on: descriptor)
      guard status >= 0 else {
        throw SystemError(operation, errno: -status, remedy: "it is not an attached queue of a TUN device: " + required)
      }
      try requireThisNamespace(descriptor, request.name, operation)
      let link = try findLink(request.name, netlink)
      var missing: [String] = []
      if request.flags & IFF_TUN == 0 { missing.append("IFF_TUN") }
      // In this answer the bit of IFF_NO_PI means IFF_NOFILTER.
      if link.tun?.hasPacketInformation == true { missing.append("IFF_NO_PI") }
      if request.flags & IFF_VNET_HDR == 0 { missing.append("IFF_VNET_HDR") }
      guard missing.isEmpty else {
        throw SystemError(
          operation, errno: EINVAL,
          remedy: "device \(request.name) lacks \(missing.joined(separator: " and ")): " + required)
      }
      guard count == 1 || request.flags & IFF_MULTI_QUEUE != 0 else {
        throw SystemError(
          operation, errno: EINVAL, remedy: "it has a single queue: use one worker, or add the flag IFF_MULTI_QUEUE")
      }
      while descriptors.count < count { descriptors.append(try openQueue(request.name, true, operation).descriptor) }
      return TunQueues(name: request.name, index: link.index, descriptors: descriptors, isCreated: false)
    } catch {
      for descriptor in descriptors { Glibc.close(descriptor) }
      throw error
    }
  }

  /// Elsewhere the device's name may mean another device. A kernel that does not tell (before Linux 5.2, or for
  /// want of privilege) is given the benefit of the doubt: without privilege nothing can be changed.
  private static func requireThisNamespace(
    _ descriptor: Int32, _ name: String, _ operation: String
  ) throws(SystemError) {
    let theirs = DeviceCalls.ioctl(descriptor, CULVERT_TUNGETDEVNETNS, value: 0)
    let ours = DeviceCalls.open("/proc/thread-self/ns/net", O_RDONLY)
    defer {
      if theirs >= 0 { Glibc.close(theirs) }
      if ours >= 0 { Glibc.close(ours) }
    }
    guard theirs >= 0, ours >= 0, DeviceCalls.identity(of: theirs) != DeviceCalls.identity(of: ours) else { return }
    throw SystemError(
      operation, errno: ENODEV,
      remedy: "device \(name) lies in another network namespace: start the gateway there (ip netns exec)")
  }
}

/// `struct ifreq`, as TUN devices use it: a name and flags.
private struct InterfaceRequest {
  private var bytes: [UInt8]

  init(name: String = "", flags: Int32 = 0) {
    bytes = [UInt8](repeating: 0, count: 16)
    for (position, byte) in name.utf8.prefix(15).enumerated() { bytes[position] = byte }
    bytes = KernelBytes { $0.add(UInt16(truncatingIfNeeded: flags)) }.padded(after: bytes)
  }

  var name: String { bytes[..<16].text }
  var flags: Int32 { Int32(bytes[16...].native(0, UInt16.self) ?? 0) }

  mutating func perform(_ request: UInt32, on descriptor: Int32) -> Int32 {
    DeviceCalls.ioctl(descriptor, request, &bytes)
  }
}

extension KernelBytes {
  /// As an ioctl argument, behind `start`.
  fileprivate func padded(after start: [UInt8] = []) -> [UInt8] {
    let bytes = start + bytes
    return bytes + [UInt8](repeating: 0, count: max(0, DeviceCalls.ioctlArgumentLength - bytes.count))
  }
}
