import CLinux
import Glibc
import PacketIO

/// Tells which of many sockets have something new (epoll, edge-triggered: a socket is told of once, and again after
/// it was emptied). Waiting and being told cost the same however many are quiet.
@safe struct Poller: ~Copyable {
  private static let capacity = 256
  private let descriptor: Int32
  private var events: FixedArray<epoll_event>
  private var count = 0

  init() throws(SystemError) {
    let descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else {
      throw SystemError("epoll_create1", errno: errno, remedy: "raise the limit of open files (ulimit -n)")
    }
    self.descriptor = descriptor
    unsafe events = FixedArray(repeating: epoll_event(), count: Poller.capacity)
  }

  deinit { Glibc.close(descriptor) }

  /// Watches a descriptor until it is closed. `isLevel`: it is told of again and again while it has something.
  /// - Returns: false when the kernel has no memory for one more.
  func add(_ file: Int32, key: UInt64, isLevel: Bool = false) -> Bool {
    var event = unsafe epoll_event()
    unsafe event.events =
      UInt32(CULVERT_EPOLLIN) | (isLevel ? 0 : CULVERT_EPOLLET)
    unsafe event.data = epoll_data_t(u64: key)
    return unsafe epoll_ctl(descriptor, EPOLL_CTL_ADD, file, &event) == 0
  }

  /// Watches a stream under another key, for both directions, edge-triggered.
  func change(_ file: Int32, key: UInt64) -> Bool {
    var event = unsafe epoll_event()
    unsafe event.events = UInt32(CULVERT_EPOLLIN) | UInt32(CULVERT_EPOLLOUT) | CULVERT_EPOLLET
    unsafe event.data = epoll_data_t(u64: key)
    return unsafe epoll_ctl(descriptor, EPOLL_CTL_MOD, file, &event) == 0
  }

  /// Waits for so many nanoseconds at most, zero not at all; `key` then tells of as many.
  mutating func wait(nanoseconds: UInt64) -> Int {
    let limit = Int64(clamping: nanoseconds)
    count = unsafe Int(culvert_epoll_wait(descriptor, events.pointer, Int32(Poller.capacity), limit))
    return max(count, 0)
  }

  func key(_ index: Int) -> UInt64 { unsafe events[index].data.u64 }
}
