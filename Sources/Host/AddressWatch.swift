import Dispatch
import Glibc

/// Notices that addresses of this machine's network namespace come and go (rtnetlink(7)).
package final class AddressWatch {
  /// One word for any number of changes.
  package let changes: AsyncStream<Void>
  private let continuation: AsyncStream<Void>.Continuation
  private let source: any DispatchSourceRead

  /// `sockaddr_nl` (netlink(7)): the family, padding, no port, and the groups RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
  private static let address: [UInt32] = [UInt32(AF_NETLINK), 0, 0x10 | 0x100]

  /// Nil where the kernel does not allow it: then nobody is told.
  package init?() {
    // The protocol 0 is NETLINK_ROUTE.
    let descriptor = socket(
      AF_NETLINK, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    let result = unsafe AddressWatch.address.withUnsafeBytes { bytes in
      unsafe bind(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
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
