import CLinux
import Glibc
import PacketIO

/// An open TUN device with its offloads settled: what the worker reads from and writes to.
///
/// All settings are made in the network namespace of the thread that creates the object; later calls may come
/// from any thread, one at a time.
package final class TunDevice: @unchecked Sendable {
  package let name: String
  /// One non-blocking queue descriptor for each worker. Packets cross it behind a `VirtioNetHeader`.
  package let queues: [Int32]
  /// Passed their self-test.
  package let offloads: TunOffloads
  /// Asked for, but not working on this kernel or device.
  package let refusedOffloads: TunOffloads

  private let opened: TunQueues
  private let settings: LinkSettings
  private var configuration: InterfaceConfiguration
  private var isClosed = false

  /// Opens or attaches, settles the offloads, and sets addresses, routes and MTU.
  ///
  /// A device that another process has just let go of is waited for, up to a second. A descriptor that is handed
  /// over is duplicated: the caller keeps its own and closes it whenever it likes, but the two share one open file,
  /// which becomes non-blocking and gets a header of `VirtioNetHeader.length` bytes.
  ///
  /// - Parameter queues: 1 or more; more than one needs a multi-queue device.
  /// - Throws: `SystemError`. Then nothing is left behind.
  package init(_ configuration: InterfaceConfiguration, queues: Int = 1) throws {
    try LinkSettings.validate(configuration)
    let netlink = try Netlink()
    let opened = try TunQueues.open(configuration.source, count: queues, netlink: netlink)
    let settled: TunOffloads
    do {
      settings = try LinkSettings(netlink, index: opened.index, name: opened.name)
    } catch {
      opened.close()
      throw error
    }
    do {
      settled = try TunDevice.settleOffloads(configuration.offloads, opened) { [settings] () throws(SystemError) in
        try settings.bringUp(quietly: opened.isCreated)
      }
      try settings.move(to: configuration)
    } catch {
      settings.restore()
      opened.close()
      throw error
    }
    name = opened.name
    self.queues = opened.descriptors
    self.opened = opened
    self.configuration = configuration
    offloads = settled
    refusedOffloads = configuration.offloads.subtracting(settled)
  }

  deinit { close() }

  /// Moves addresses, routes and MTU from what is in force to `new`; unchanged ones are not touched.
  ///
  /// - Throws: `SystemError`; then what was in force before is in force again.
  package func apply(_ new: InterfaceConfiguration) throws {
    guard !isClosed else { throw SystemError("change \(name)", errno: EBADF, remedy: "it is closed: start again") }
    guard new.source == configuration.source, new.offloads == configuration.offloads else {
      throw SystemError(
        "change \(name)", errno: EINVAL,
        remedy: "only addresses, routes and MTU may change while the device is in use: start again for the rest")
    }
    try settings.move(to: new)
    configuration = new
  }

  /// Closes the queues; a device that this object created disappears with its routes. One that was persistent or
  /// handed over as a descriptor loses the addresses and routes this object added, and gets back its MTU and state.
  ///
  /// The routes are gone on return even when reads in flight hold the device open a little longer.
  package func close() {
    guard !isClosed else { return }
    isClosed = true
    if opened.isCreated { settings.takeDown() } else { settings.restore() }
    opened.close()
  }
}

// MARK: - Offloads

extension TunDevice {
  /// Has the kernel accept as many of the offloads as it can, and keeps those that pass their test.
  ///
  /// - Parameter bringUp: called once the kernel has accepted, before packets can flow.
  private static func settleOffloads(
    _ wanted: TunOffloads, _ opened: TunQueues, bringUp: () throws(SystemError) -> Void
  ) throws(SystemError) -> TunOffloads {
    let accepted = try setOffloads(wanted, opened)
    try bringUp()
    guard !accepted.isEmpty, let test = OffloadSelfTest(index: opened.index, queues: opened.descriptors) else {
      return accepted
    }
    let passed = test.run(accepted)
    return passed == accepted ? accepted : try setOffloads(passed, opened)
  }

  /// Sets the offloads or, where the kernel refuses, as many as it accepts: it knows partial checksums without
  /// segmentation, TCP without UDP, and UDP for both address families only.
  private static func setOffloads(_ wanted: TunOffloads, _ opened: TunQueues) throws(SystemError) -> TunOffloads {
    let withoutUDP = wanted.subtracting([.udp4, .udp6])
    var status: Int32 = 0
    for candidate in [wanted, withoutUDP, wanted.intersection(.checksum), []] {
      // A kernel that cuts TCP superpackets with CWR for us is better than none.
      for ecn in [UInt(TUN_F_TSO_ECN), 0] {
        status = DeviceCalls.ioctl(opened.descriptors[0], CULVERT_TUNSETOFFLOAD, value: flags(candidate, ecn: ecn))
        if status >= 0 { return candidate }
      }
    }
    throw SystemError(
      "set the offloads of TUN device \(opened.name)", errno: -status,
      remedy: "a Linux kernel of version 5.15 or newer is needed")
  }

  private static func flags(_ offloads: TunOffloads, ecn: UInt) -> UInt {
    var flags: UInt = 0
    if offloads.contains(.checksum) { flags |= UInt(TUN_F_CSUM) }
    if offloads.contains(.tcp4) { flags |= UInt(TUN_F_TSO4) }
    if offloads.contains(.tcp6) { flags |= UInt(TUN_F_TSO6) }
    if !offloads.isDisjoint(with: [.tcp4, .tcp6]) { flags |= ecn }
    if offloads.contains(.udp4) { flags |= UInt(CULVERT_TUN_F_USO4) }
    if offloads.contains(.udp6) { flags |= UInt(CULVERT_TUN_F_USO6) }
    return flags
  }
}
