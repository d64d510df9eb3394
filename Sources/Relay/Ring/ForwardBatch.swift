import CLinux
import Glibc
import PacketIO

/// What a turn sends: runs of sealed packets from where they lie in received buffers. The kernel has taken all of it when
/// the submission returns, because nothing waits; the buffers are let go of with the completions, because a train that
/// the route cannot segment is sent once more.
@safe struct ForwardBatch: ~Copyable {
  /// Runs, and messages made of them, between two submissions. What is above is sent at once, or dropped and counted.
  static let capacity = 1024
  /// Packets of a message that is put together here: UDP_MAX_SEGMENTS before Linux 6.10; and its bytes.
  static let mostSegments = 64
  static let mostBytes = 65_000

  /// Sealed packets of one size, the last may be shorter, one behind the other.
  struct Run: BitwiseCopyable {
    var bytes: PacketBytes
    var buffer: BufferID
    var segmentSize: Int
    var trafficClass: UInt8
    var packets: UInt64 { UInt64((bytes.count + segmentSize - 1) / segmentSize) }
    var segments: SegmentIterator { SegmentIterator(end: bytes.count, size: segmentSize) }
  }

  /// Runs that make one message.
  struct Group: BitwiseCopyable {
    var first = 0
    var runs = 0
    var packets: UInt64 = 0
    var bytes = 0
    var descriptor: Int32 = -1
    /// Who sent it, as `Token.value` has it.
    var sender = 0
  }

  /// Packets and their bytes.
  struct Amount: BitwiseCopyable {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0

    init() {}

    init(packets: UInt64, bytes: UInt64) {
      self.packets = packets
      self.bytes = bytes
    }

    /// All of it.
    init(_ run: Run) { self.init(packets: run.packets, bytes: UInt64(clamping: run.bytes.count)) }
  }

  private var runs: FixedArray<Run>
  private var vectors: FixedArray<iovec>
  private var groups: FixedArray<Group>
  private var headers: FixedArray<msghdr>
  private var names: FixedArray<SocketName>
  private var controls: FixedArray<SendControl>
  /// Staged are the runs from `start` to `end`.
  private var start = 0
  private var end = 0
  private var groupCount = 0
  private var inFlight = 0

  init(pool: BufferPool) {
    // The last place is for `sendNow`.
    let places = ForwardBatch.capacity + 1
    runs = FixedArray(
      repeating: Run(bytes: pool.bytes(0), buffer: 0, segmentSize: 1, trafficClass: 0), count: places)
    unsafe vectors = FixedArray(repeating: iovec(), count: places)
    groups = FixedArray(repeating: Group(), count: places)
    unsafe headers = FixedArray(repeating: msghdr(), count: places)
    names = FixedArray(repeating: SocketName(Endpoint.unspecified), count: places)
    controls = FixedArray(repeating: SendControl(), count: places)
  }

  // MARK: Staging

  var staged: Int { end - start }
  /// Runs that still fit.
  var room: Int { ForwardBatch.capacity - end }
  /// Sealed packets among what is staged.
  var stagedPackets: UInt64 { (start..<end).reduce(0) { $0 + runs[$1].packets } }

  /// The staged run of that number.
  func run(_ index: Int) -> Run { runs[start + index] }

  /// Puts a run behind those to be sent, which holds the buffer. `room` must not be zero.
  mutating func stage(_ run: Run, pool: BufferPool) {
    pool.retain(run.buffer)
    runs[end] = run
    end += 1
  }

  mutating func unstage(pool: BufferPool) {
    for index in start..<end { pool.release(runs[index].buffer) }
    end = start
    reset()
  }

  /// From the front again, when nothing is on its way.
  private mutating func reset() {
    guard inFlight == 0, staged == 0 else { return }
    (start, end, groupCount) = (0, 0, 0)
  }

  // MARK: Sending

  /// Submits all staged runs to `name`, each as one message; single packets of one size, one behind the other, make one
  /// message together, whoever sent them singly.
  mutating func send(_ descriptor: Int32, to name: SocketName, sender: Int, ring: inout Ring) -> Amount {
    var amount = Amount()
    while start < end {
      names[groupCount] = name
      let group = unsafe nextGroup(descriptor, sender)
      groups[groupCount] = group
      amount.packets += group.packets
      amount.bytes += UInt64(group.bytes)
      unsafe ring.sendMessage(
        RingFile(descriptor), headers.pointer + groupCount, flags: UInt32(MSG_DONTWAIT),
        token: Token(owner: 0, kind: RelayIO.Kind.send, value: groupCount))
      groupCount += 1
      inFlight += 1
      start += group.runs
    }
    return amount
  }

  /// Lays out one message of the first of the staged runs.
  @unsafe private mutating func nextGroup(_ descriptor: Int32, _ sender: Int) -> Group {
    let first = runs[start]
    var group = Group(
      first: start, runs: 1, packets: first.packets, bytes: first.bytes.count, descriptor: descriptor, sender: sender)
    var isOpen = first.bytes.count == first.segmentSize
    while isOpen, start + group.runs < end, group.runs < ForwardBatch.mostSegments {
      let run = runs[start + group.runs]
      guard run.bytes.count <= min(first.segmentSize, run.segmentSize), run.trafficClass == first.trafficClass,
        group.bytes + run.bytes.count <= ForwardBatch.mostBytes
      else { break }
      // A shorter one can only be the last.
      isOpen = run.bytes.count == first.segmentSize
      group.runs += 1
      group.packets += 1
      group.bytes += run.bytes.count
    }
    for index in group.first..<group.first + group.runs {
      unsafe vectors[index] = iovec(iov_base: runs[index].bytes.pointer, iov_len: runs[index].bytes.count)
    }
    unsafe fill(
      groupCount, group, segmentSize: group.packets > 1 ? first.segmentSize : nil,
      trafficClass: first.trafficClass)
    return group
  }

  /// - Parameter segmentSize: nil: it is one datagram.
  @unsafe private mutating func fill(
    _ index: Int, _ group: Group, segmentSize: Int?, trafficClass: UInt8
  ) {
    unsafe SendControl.fill(
      headers.pointer + index, to: names.pointer + index, controls.pointer + index, vectors.pointer + group.first,
      count: group.runs, segmentSize: segmentSize, trafficClass: trafficClass)
  }

  /// Sends a run by itself before this returns: one for which there is no room. What goes to the same destination has been
  /// submitted before.
  /// - Returns: what of it was not taken.
  mutating func sendNow(_ run: Run, _ descriptor: Int32, to name: SocketName) -> Amount {
    let place = ForwardBatch.capacity
    runs[place] = run
    names[place] = name
    groups[place] = Group(
      first: place, runs: 1, packets: run.packets, bytes: run.bytes.count, descriptor: descriptor)
    unsafe vectors[place] = iovec(iov_base: run.bytes.pointer, iov_len: run.bytes.count)
    unsafe fill(
      place, groups[place], segmentSize: run.packets > 1 ? run.segmentSize : nil, trafficClass: run.trafficClass)
    if unsafe sendmsg(descriptor, headers.pointer + place, Int32(MSG_DONTWAIT)) >= 0 { return Amount() }
    if run.packets > 1, SendControl.cannotSegment(errno) { return unsafe sendSingly(place) }
    return Amount(packets: run.packets, bytes: UInt64(clamping: run.bytes.count))
  }

  // MARK: Completing

  /// Whose message `index` is.
  func sender(_ index: Int) -> Int { groups[index].sender }
  /// By which descriptor it went.
  func descriptor(_ index: Int) -> Int32 { groups[index].descriptor }

  /// Takes the completion of message `index`.
  ///
  /// - Parameter open: the descriptor by which it may be sent once more; another may be somebody else's by now.
  /// - Returns: what of it was not taken: it would wait here for a receiver that is too slow anyway.
  mutating func complete(_ index: Int, result: Int32, open: Int32, pool: BufferPool) -> Amount {
    let group = groups[index]
    var failed = Amount()
    if result < 0 {
      if group.packets > 1, SendControl.cannotSegment(-result), group.descriptor == open {
        failed = unsafe sendSingly(index)
      } else {
        failed = Amount(packets: group.packets, bytes: UInt64(group.bytes))
      }
    }
    for run in group.first..<group.first + group.runs { pool.release(runs[run].buffer) }
    inFlight -= 1
    reset()
    return failed
  }

  /// Where the route cannot segment, or not so many: one after the other.
  @unsafe private mutating func sendSingly(_ index: Int) -> Amount {
    let group = groups[index]
    var failed = Amount()
    for place in group.first..<group.first + group.runs {
      let run = runs[place]
      for segment in run.segments {
        let piece = run.bytes.slice(segment.start, segment.length)
        unsafe vectors[place] = iovec(iov_base: piece.pointer, iov_len: piece.count)
        var single = group
        (single.first, single.runs) = (place, 1)
        unsafe fill(index, single, segmentSize: nil, trafficClass: run.trafficClass)
        if unsafe sendmsg(group.descriptor, headers.pointer + index, Int32(MSG_DONTWAIT)) < 0 {
          failed.packets += 1
          failed.bytes += UInt64(piece.count)
        }
      }
    }
    return failed
  }
}
