import CLinux
import Glibc

/// Many datagrams of one size that go to the kernel, or come from it, in one call.
@safe final class DatagramBatch: @unchecked Sendable {
  let capacity: Int
  /// Bytes between the beginnings of two datagrams.
  let stride: Int
  let buffer: LabBuffer
  private let messages: UnsafeMutablePointer<culvert_mmsghdr>
  private let vectors: UnsafeMutablePointer<iovec>

  /// - Parameter size: bytes of each datagram, or of the room for it.
  init(capacity: Int, size: Int) {
    self.capacity = capacity
    stride = (size + 63) / 64 * 64
    buffer = LabBuffer(count: capacity * stride)
    unsafe messages = .allocate(capacity: capacity)
    unsafe vectors = .allocate(capacity: capacity)
    for i in 0..<capacity {
      unsafe vectors[i] = iovec(iov_base: buffer.slice(i * stride, size).baseAddress, iov_len: size)
      var header = unsafe msghdr()
      unsafe header.msg_iov = unsafe vectors + i
      unsafe header.msg_iovlen = 1
      unsafe messages.advanced(by: i).initialize(to: culvert_mmsghdr(header: header, length: 0))
    }
  }

  deinit {
    unsafe messages.deallocate()
    unsafe vectors.deallocate()
  }

  /// Sends the first `count` datagrams on a connected socket. How many went, or a negative errno.
  func send(on socket: Socket, _ count: Int) -> Int {
    let n = unsafe culvert_sendmmsg(socket.descriptor, messages, UInt32(count), 0)
    return n < 0 ? -Int(errno) : Int(n)
  }

  /// Takes what is there without waiting. How many came, or a negative errno.
  func receive(on socket: Socket) -> Int {
    let n = unsafe culvert_recvmmsg(socket.descriptor, messages, UInt32(capacity), Int32(MSG_DONTWAIT))
    return n < 0 ? -Int(errno) : Int(n)
  }

  /// Bytes of the datagram that was received at `index`.
  func size(_ index: Int) -> Int {
    precondition(index < capacity)
    return unsafe Int(messages[index].length)
  }
}
