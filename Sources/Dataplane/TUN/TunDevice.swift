package import PacketIO

/// An open TUN device with its offloads settled: what the worker reads from and writes to.
package final class TunDevice: @unchecked Sendable {
  package let name: String
  /// One non-blocking queue descriptor for each worker.
  package let queues: [Int32]
  /// Passed their self-test.
  package let offloads: TunOffloads
  /// Asked for, but not working on this kernel or device.
  package let refusedOffloads: TunOffloads

  /// Opens or attaches, settles the offloads, and sets addresses, routes and MTU.
  package init(_ configuration: InterfaceConfiguration, queues: Int = 1) throws {
    fatalError()
  }

  /// Moves addresses, routes and MTU from what is in force to `new`; unchanged ones are not touched.
  package func apply(_ new: InterfaceConfiguration) throws { fatalError() }

  /// Closes the queues; a device that this object created disappears with its routes. One that was persistent or
  /// handed over as a descriptor loses the addresses and routes this object added.
  package func close() { fatalError() }
}
