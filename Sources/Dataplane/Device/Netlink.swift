import CLinux
import Glibc
import PacketIO

/// A conversation with the kernel about interfaces, addresses and routes (rtnetlink(7)).
///
/// It speaks to the network namespace that its creating thread was in, from whatever thread it is used later.
/// Not to be used by two threads at once.
final class Netlink {
  /// What the kernel said no to, in its own words where it has some.
  struct Refusal: Error {
    let errno: Int32
    let explanation: String?

    /// - Parameter operation: what was attempted.
    func explained(_ operation: String, remedy: String?) -> SystemError {
      SystemError(operation + (explanation.map { " (\($0))" } ?? ""), errno: errno, remedy: remedy)
    }
  }

  private let descriptor: Int32
  private var sequence: UInt32 = 0
  /// The kernel sends dumps in pieces of up to 32 KiB.
  private var buffer = [UInt8](repeating: 0, count: 64 * 1024)

  init() throws(SystemError) {
    descriptor = DeviceCalls.socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), NETLINK_ROUTE)
    guard descriptor >= 0 else {
      throw SystemError("open a netlink socket", errno: -descriptor, remedy: "allow AF_NETLINK sockets in the sandbox")
    }
    // Better messages and cheaper dumps; kernels that lack them do without.
    for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK] {
      _ = DeviceCalls.setOption(descriptor, SOL_NETLINK, option, 1)
    }
    // A connected socket hears the kernel only: address zero is the kernel.
    let kernel = KernelBytes {
      $0.add(UInt16(AF_NETLINK))
      $0.add(UInt16(0))
      $0.add(UInt64(0))
    }
    let status = DeviceCalls.connect(descriptor, kernel.bytes)
    guard status >= 0 else {
      close(descriptor)
      throw SystemError("connect a netlink socket", errno: -status)
    }
  }

  deinit { close(descriptor) }

  /// Sends a request and waits until the kernel has carried it out.
  ///
  /// - Returns: what it answered before its acknowledgement; all entries for a dump.
  @discardableResult
  func perform(_ request: NetlinkRequest) throws(Refusal) -> [NetlinkReply] {
    let isDump = Int32(request.flags) & NLM_F_DUMP == NLM_F_DUMP
    // A table that changed while it was dumped is dumped again; a table in constant turmoil is taken as it is.
    for _ in 0..<4 {
      let (replies, isInterrupted) = try exchange(request, extraFlags: NLM_F_REQUEST | (isDump ? 0 : NLM_F_ACK))
      if !isInterrupted { return replies }
    }
    return try exchange(request, extraFlags: NLM_F_REQUEST).replies
  }

  private func exchange(
    _ request: NetlinkRequest, extraFlags: Int32
  ) throws(Refusal) -> (replies: [NetlinkReply], isInterrupted: Bool) {
    sequence &+= 1
    let sent = DeviceCalls.send(descriptor, request.encoded(sequence: sequence, extraFlags: extraFlags))
    if sent < 0 { throw Refusal(errno: Int32(-sent), explanation: nil) }
    var replies: [NetlinkReply] = []
    var isInterrupted = false
    while true {
      let got = DeviceCalls.receive(descriptor, into: &buffer)
      if got < 0 { throw Refusal(errno: Int32(-got), explanation: nil) }
      if got > buffer.count { throw Refusal(errno: ENOBUFS, explanation: "a netlink answer of \(got) bytes") }
      for reply in NetlinkReply.split(buffer[..<got]) where reply.sequence == sequence {
        if reply.flags & NLM_F_DUMP_INTR != 0 { isInterrupted = true }
        switch reply.type {
        case NLMSG_ERROR, NLMSG_DONE:
          if let refusal = Netlink.refusal(in: reply) { throw refusal }
          return (replies, isInterrupted)
        default:
          replies.append(reply)
        }
      }
    }
  }

  /// The error an acknowledgement carries; nil when it says that all went well.
  private static func refusal(in reply: NetlinkReply) -> Refusal? {
    guard let code = reply.body.native(0, Int32.self), code != 0 else { return nil }
    var explanation: String?
    if reply.flags & NLM_F_ACK_TLVS != 0 {
      // Behind the code: the header of the refused request and, unless it was capped, all of that request.
      var echo = 0
      if reply.type == NLMSG_ERROR {
        let request = reply.flags & NLM_F_CAPPED != 0 ? 16 : Int(reply.body.native(4, UInt32.self) ?? 16)
        echo = (request + 3) & ~3
      }
      explanation = reply.attributes(after: 4 + echo)[Int(NLMSGERR_ATTR_MSG.rawValue)]?.text
    }
    return Refusal(errno: code == Int32.min ? EIO : abs(code), explanation: explanation)
  }
}

// MARK: - Links

extension Netlink {
  /// An interface, as far as a tunnel cares.
  struct Link {
    let index: Int32
    let name: String
    let isUp: Bool
    let mtu: Int
    /// Present for TUN and TAP devices, on kernels that tell (Linux 4.17).
    let tun: Tun?
    /// "tun", "veth" and so on; nil for plain network cards.
    let kind: String?

    struct Tun {
      /// Carries Ethernet frames: a TAP.
      let isEthernet: Bool
      /// Puts protocol information before each packet: opened without `IFF_NO_PI`.
      let hasPacketInformation: Bool
      let isPersistent: Bool
      let isMultiQueue: Bool
      /// Queues held open by somebody; known for multi-queue devices only.
      let attachedQueues: Int
    }
  }

  /// The interface of that name; nil when there is none.
  func link(named name: String) throws(Refusal) -> Link? {
    var request = NetlinkRequest(RTM_GETLINK, header: Netlink.linkHeader(index: 0))
    request.add(IFLA_IFNAME, KernelBytes { $0.add(name) })
    return try link(request)
  }

  /// The interface of that index; nil when there is none.
  func link(_ index: Int32) throws(Refusal) -> Link? {
    try link(NetlinkRequest(RTM_GETLINK, header: Netlink.linkHeader(index: index)))
  }

  private func link(_ request: NetlinkRequest) throws(Refusal) -> Link? {
    do { return try perform(request).first.flatMap(Netlink.parseLink) } catch {
      if error.errno == ENODEV { return nil }
      throw error
    }
  }

  /// Changes the flag `IFF_UP` and the MTU; nil leaves as it is.
  func setLink(_ index: Int32, up: Bool? = nil, mtu: Int? = nil) throws(Refusal) {
    let header = Netlink.linkHeader(
      index: index, flags: up == true ? UInt32(IFF_UP) : 0, change: up == nil ? 0 : UInt32(IFF_UP))
    var request = NetlinkRequest(RTM_NEWLINK, header: header)
    if let mtu { request.add(IFLA_MTU, UInt32(mtu)) }
    try perform(request)
  }

  /// Has the kernel make no link-local IPv6 address for the interface when it comes up.
  func omitLinkLocalAddress(_ index: Int32) throws(Refusal) {
    var request = NetlinkRequest(RTM_NEWLINK, header: Netlink.linkHeader(index: index))
    let mode = KernelBytes {
      $0.addAttribute(IFLA_INET6_ADDR_GEN_MODE, KernelBytes([UInt8(IN6_ADDR_GEN_MODE_NONE.rawValue)]))
    }
    request.add(IFLA_AF_SPEC, KernelBytes { $0.addAttribute(Int(AF_INET6), mode) })
    try perform(request)
  }

  /// `struct ifinfomsg`
  private static func linkHeader(index: Int32, flags: UInt32 = 0, change: UInt32 = 0) -> KernelBytes {
    KernelBytes {
      $0.add(UInt32(0))
      $0.add(index)
      $0.add(flags)
      $0.add(change)
    }
  }

  private static func parseLink(_ reply: NetlinkReply) -> Link? {
    guard reply.type == RTM_NEWLINK, let index = reply.body.native(4, Int32.self),
      let flags = reply.body.native(8, UInt32.self)
    else { return nil }
    let attributes = reply.attributes(after: 16)
    let info = attributes[IFLA_LINKINFO]?.attributes() ?? [:]
    let kind = info[IFLA_INFO_KIND]?.text
    var tun: Link.Tun?
    if kind == "tun", let data = info[IFLA_INFO_DATA]?.attributes() {
      tun = Link.Tun(
        isEthernet: data[IFLA_TUN_TYPE]?.first == UInt8(IFF_TAP),
        hasPacketInformation: data[IFLA_TUN_PI]?.first == 1, isPersistent: data[IFLA_TUN_PERSIST]?.first == 1,
        isMultiQueue: data[IFLA_TUN_MULTI_QUEUE]?.first == 1,
        attachedQueues: Int(data[IFLA_TUN_NUM_QUEUES]?.native(0, UInt32.self) ?? 0))
    }
    return Link(
      index: index, name: attributes[IFLA_IFNAME]?.text ?? "",
      isUp: flags & UInt32(IFF_UP) != 0,
      mtu: Int(attributes[IFLA_MTU]?.native(0, UInt32.self) ?? 0), tun: tun, kind: kind)
  }
}

// MARK: - Addresses

extension Netlink {
  /// All addresses of all interfaces in the namespace.
  func addresses() throws(Refusal) -> [(index: Int32, address: InterfaceAddress)] {
    let request = NetlinkRequest(RTM_GETADDR, flags: NLM_F_DUMP, header: Netlink.addressHeader(AF_UNSPEC, 0, 0))
    return try perform(request).compactMap { (reply) -> (index: Int32, address: InterfaceAddress)? in
      guard reply.type == RTM_NEWADDR, let length = reply.body.native(1, UInt8.self),
        let index = reply.body.native(4, Int32.self)
      else { return nil }
      let attributes = reply.attributes(after: 8)
      // On point-to-point links IFA_ADDRESS is the other end.
      let bytes = attributes[IFA_LOCAL] ?? attributes[IFA_ADDRESS]
      guard let address = bytes.flatMap(IPAddress.init(networkOrder:)), Int(length) <= address.bitWidth else {
        return nil
      }
      return (index, InterfaceAddress(address, prefixLength: Int(length)))
    }
  }

  /// Adds an address that is usable at once: no duplicate address detection, which a tunnel cannot answer.
  func add(_ address: InterfaceAddress, to index: Int32) throws(Refusal) {
    try change(RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL, address, index)
  }

  func remove(_ address: InterfaceAddress, from index: Int32) throws(Refusal) {
    try change(RTM_DELADDR, flags: 0, address, index)
  }

  private func change(_ type: Int, flags: Int32, _ address: InterfaceAddress, _ index: Int32) throws(Refusal) {
    let family = address.address.isV4 ? AF_INET : AF_INET6
    var request = NetlinkRequest(
      type, flags: flags, header: Netlink.addressHeader(family, UInt8(address.prefixLength), index))
    request.add(IFA_LOCAL, KernelBytes(address.address.networkOrder))
    request.add(IFA_ADDRESS, KernelBytes(address.address.networkOrder))
    if !address.address.isV4 { request.add(IFA_FLAGS, UInt32(IFA_F_NODAD)) }
    try perform(request)
  }

  /// `struct ifaddrmsg`
  private static func addressHeader(_ family: Int32, _ prefixLength: UInt8, _ index: Int32) -> KernelBytes {
    KernelBytes {
      $0.add(UInt8(family))
      $0.add(prefixLength)
      $0.add(UInt16(0))
      $0.add(index)
    }
  }
}

// MARK: - Routes

extension Netlink {
  /// Prefixes of one family that the main table sends out of an interface.
  ///
  /// - Parameter index: the interface; nil asks for the whole table, which may be long.
  func routes(
    _ family: IPAddress.Family, through index: Int32? = nil
  ) throws(Refusal) -> [(index: Int32, prefix: Prefix)] {
    var request = NetlinkRequest(RTM_GETROUTE, flags: NLM_F_DUMP, header: Netlink.routeHeader(family, 0, nil))
    request.add(Int(RTA_TABLE.rawValue), UInt32(RT_TABLE_MAIN.rawValue))
    if let index { request.add(Int(RTA_OIF.rawValue), UInt32(bitPattern: index)) }
    let wanted = family == .v4 ? UInt8(AF_INET) : UInt8(AF_INET6)
    let any = family == .v4 ? IPAddress(v4: 0) : IPAddress(v6High: 0, low: 0)
    return try perform(request).compactMap { (reply) -> (index: Int32, prefix: Prefix)? in
      // An older kernel does not filter, so all that was asked for is looked at again.
      guard reply.type == RTM_NEWROUTE, reply.body.native(0, UInt8.self) == wanted,
        let length = reply.body.native(1, UInt8.self), Int(length) <= any.bitWidth,
        reply.body.native(7, UInt8.self) == UInt8(RTN_UNICAST),
        let flags = reply.body.native(8, UInt32.self), flags & UInt32(RTM_F_CLONED) == 0
      else { return nil }
      let attributes = reply.attributes(after: 12)
      guard attributes[Int(RTA_TABLE.rawValue)]?.native(0, UInt32.self) == UInt32(RT_TABLE_MAIN.rawValue),
        let out = attributes[Int(RTA_OIF.rawValue)]?.native(0, Int32.self), index == nil || out == index
      else { return nil }
      let destination = attributes[Int(RTA_DST.rawValue)].flatMap(IPAddress.init(networkOrder:)) ?? any
      return (out, Prefix(destination, length: Int(length)))
    }
  }

  /// Sends a prefix into an interface; refuses one that the main table has already.
  func add(_ route: Prefix, to index: Int32) throws(Refusal) {
    try change(RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_EXCL, route, index)
  }

  func remove(_ route: Prefix, from index: Int32) throws(Refusal) { try change(RTM_DELROUTE, flags: 0, route, index) }

  private func change(_ type: Int, flags: Int32, _ route: Prefix, _ index: Int32) throws(Refusal) {
    var request = NetlinkRequest(
      type, flags: flags, header: Netlink.routeHeader(route.address.family, UInt8(route.length), UInt8(RTPROT_STATIC)))
    request.add(Int(RTA_DST.rawValue), KernelBytes(route.address.networkOrder))
    request.add(Int(RTA_OIF.rawValue), UInt32(bitPattern: index))
    try perform(request)
  }

  /// `struct rtmsg`; with a protocol, of a unicast route to a device in the main table, else of a question.
  private static func routeHeader(_ family: IPAddress.Family, _ length: UInt8, _ proto: UInt8?) -> KernelBytes {
    let isRoute = proto != nil
    return KernelBytes {
      $0.add(family == .v4 ? UInt8(AF_INET) : UInt8(AF_INET6))
      $0.add(length)
      $0.add(UInt16(0))
      $0.add(isRoute ? UInt8(RT_TABLE_MAIN.rawValue) : 0)
      $0.add(proto ?? 0)
      $0.add(isRoute && family == .v4 ? UInt8(RT_SCOPE_LINK.rawValue) : 0)
      $0.add(isRoute ? UInt8(RTN_UNICAST) : 0)
      $0.add(UInt32(0))
    }
  }
}

extension IPAddress {
  /// The address as packets carry it: 4 or 16 bytes.
  var networkOrder: [UInt8] {
    let words = isV4 ? [high] : [high, low]
    let bytes = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(56 - $0 * 8)) } }
    return isV4 ? Array(bytes.prefix(4)) : bytes
  }

  /// Nil unless there are 4 or 16 bytes.
  init?(networkOrder bytes: ArraySlice<UInt8>) {
    func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
    switch bytes.count {
    case 4: self.init(v4: UInt32(number(bytes)))
    case 16: self.init(v6High: number(bytes.prefix(8)), low: number(bytes.suffix(8)))
    default: return nil
    }
  }
}
