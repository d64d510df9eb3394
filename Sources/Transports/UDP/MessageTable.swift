import Glibc
import PacketIO

/// The kernel's view of the sends in flight: message header, address, gather entry and GSO size of each, at
/// addresses that stay put until the completion.
@safe struct MessageTable: ~Copyable {
  private var trains: FixedArray<Superpacket>
  private var headers: FixedArray<msghdr>
  private var vectors: FixedArray<iovec>
  private var names: FixedArray<SocketName>
  private var controls: FixedArray<SendControl>
  private var free: FixedArray<Int32>

  init(capacity: Int) {
    let nothing = Superpacket(buffer: 0, offset: 0, length: 0, segmentSize: 1)
    trains = FixedArray(repeating: nothing, count: capacity)
    unsafe headers = FixedArray(repeating: msghdr(), count: capacity)
    unsafe vectors = FixedArray(repeating: iovec(), count: capacity)
    names = FixedArray(repeating: SocketName(Endpoint.unspecified), count: capacity)
    controls = FixedArray(repeating: SendControl(), count: capacity)
    free = FixedArray(capacity: capacity)
    for index in stride(from: capacity - 1, through: 0, by: -1) { free.append(Int32(index)) }
  }

  /// A free entry, which now remembers `train`; nil when all are in flight.
  mutating func take(_ train: Superpacket) -> Int? {
    guard let index = free.popLast() else { return nil }
    trains[Int(index)] = train
    return Int(index)
  }

  /// Frees an entry and returns what it remembered.
  mutating func give(_ index: Int) -> Superpacket {
    free.append(Int32(index))
    return trains[index]
  }

  /// Sends what an entry remembers as one message.
  mutating func submit(_ index: Int, _ file: RingFile, token: Token, io: inout WorkerIO) {
    let train = trains[index]
    let bytes = train.bytes(in: io.pool)
    unsafe vectors[index] = iovec(iov_base: bytes.pointer, iov_len: bytes.count)
    names[index] = SocketName(train.path.endpoint)
    unsafe SendControl.fill(
      headers.pointer + index, to: names.pointer + index, controls.pointer + index, vectors.pointer + index, count: 1,
      segmentSize: train.length > train.segmentSize ? Int(train.segmentSize) : nil, trafficClass: train.trafficClass)
    unsafe io.ring.sendMessage(file, headers.pointer + index, token: token)
  }
}
