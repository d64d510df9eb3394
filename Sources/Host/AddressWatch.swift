import CLinux
import Dispatch
import Glibc

/// Notices that addresses of this machine's network namespace come and go (rtnetlink(7)).
package final class AddressWatch {
  /// One word for any number of changes.
  package let changes: AsyncStream<Void>
  private let continuation: AsyncStream<Void>.Continuation
  private let source: any DispatchSourceRead

  /// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR, which are macros.
  private static let groups: UInt32 = 0x10 | 0x100

  /// Nil where the kernel does not allow it: then nobody is told.
  package init?() {
    let descriptor = socket(
      AF_NETLINK, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue),
      NETLINK_ROUTE)
    guard descriptor >= 0 else { return nil }
    var address = sockaddr_nl()
    address.nl_family = UInt16(AF_NETLINK)
    address.nl_groups = AddressWatch.groups
    let result = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_nl>.size))
      }
    }
    guard result == 0 else {
      close(descriptor)
      return nil
    }
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    changes = stream
    self.continuation = continuation
    source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: .global())
    source.setEventHandler {
      // What has changed does not matter, and too many to be told of one by one (ENOBUFS) are a change too.
      var buffer = [UInt8](repeating: 0, count: 4096)
      while unsafe recv(descriptor, &buffer, buffer.count, 0) > 0 {}
      continuation.yield()
    }
    source.setCancelHandler { close(descriptor) }
    source.resume()
  }

  deinit {
    source.cancel()
    continuation.finish()
  }
}
