import PacketIO

/// What waits to be sent, for each stream in order. All share one store, so that their sum is bounded.
///
/// The policy: the newest is dropped when its queue is full, because what was queued before is older, in order, and
/// partly in the stream already. A queue is full at `trainsPerStream`, or when its holder, a peer with all his streams,
/// has his share of the store (`Shares`).
struct SendQueues: ~Copyable {
  /// One stream's queue: its place in the store, and how far its first train has been sent.
  struct Queue: BitwiseCopyable {
    fileprivate var first: Int32 = -1
    fileprivate var last: Int32 = -1
    /// Trains in it.
    fileprivate(set) var count = 0
    /// Bytes of the first train's records, lengths included, that have gone.
    fileprivate(set) var skip = 0
    init() {}
    var isEmpty: Bool { count == 0 }
  }

  struct Node: BitwiseCopyable {
    var train: Superpacket
    var next: Int32
    /// A record with the zero marker, and no sealed packets.
    var isMessage = false
    /// Whom it is accounted to.
    fileprivate var holder = Holder.peer(0)
  }

  private var nodes: FixedArray<Node>
  private var free: FixedArray<Int32>
  private let trainsPerStream: Int
  private var held: Shares

  /// - Parameters:
  ///   - capacity: trains in all queues together.
  ///   - trainsPerStream: trains in one queue.
  init(capacity: Int, trainsPerStream: Int) {
    let nothing = Superpacket(buffer: 0, offset: 0, length: 0, segmentSize: 1)
    nodes = FixedArray(repeating: Node(train: nothing, next: -1), count: capacity)
    free = FixedArray(capacity: capacity)
    for index in stride(from: capacity - 1, through: 0, by: -1) { free.append(Int32(index)) }
    self.trainsPerStream = trainsPerStream
    held = Shares(.sendQueues, capacity: capacity)
  }

  /// Who has how many trains.
  func shares() -> ShareReport { held.report() }

  /// Messages that a full queue has room for.
  private static let messages = 4

  /// False when the queue is full; nothing is taken then.
  /// - Parameters:
  ///   - isMessage: whether it is a message, which a queue full of packets still takes: what agrees on keys, or holds the
  ///     path open, must not wait for a flood of packets to end.
  ///   - holder: who is at the stream's other end.
  mutating func append(_ train: Superpacket, to queue: inout Queue, of holder: Holder, isMessage: Bool = false) -> Bool
  {
    let most = trainsPerStream + (isMessage ? SendQueues.messages : 0)
    guard queue.count < most, isMessage || held.mayTake(for: holder), let index = free.popLast() else {
      held.refuse(holder)
      return false
    }
    held.add(to: holder)
    nodes[Int(index)] = Node(train: train, next: -1, isMessage: isMessage, holder: holder)
    if queue.last >= 0 { nodes[Int(queue.last)].next = index } else { queue.first = index }
    queue.last = index
    queue.count += 1
    return true
  }

  /// The first train and those behind it, one after the other; nil at the end.
  func first(of queue: Queue) -> Int32? { queue.first >= 0 ? queue.first : nil }
  func train(_ index: Int32) -> Superpacket { nodes[Int(index)].train }
  func isMessage(_ index: Int32) -> Bool { nodes[Int(index)].isMessage }
  func next(after index: Int32) -> Int32? { nodes[Int(index)].next >= 0 ? nodes[Int(index)].next : nil }

  /// Whether what goes next of the queue begins a record: a long queue's sends end within its trains.
  func isBetweenRecords(_ queue: Queue) -> Bool {
    guard queue.skip > 0, queue.first >= 0 else { return true }
    return queue.skip % (Int(nodes[Int(queue.first)].train.segmentSize) + RecordFramer.lengthBytes) == 0
  }

  /// Takes the first train out.
  mutating func removeFirst(of queue: inout Queue) -> Node? {
    guard queue.first >= 0 else { return nil }
    let index = queue.first
    queue.first = nodes[Int(index)].next
    if queue.first < 0 { queue.last = -1 }
    queue.count -= 1
    queue.skip = 0
    free.append(index)
    held.give(from: nodes[Int(index)].holder)
    return nodes[Int(index)]
  }

  /// `bytes` more of the queue have gone. Returns the first train once it has gone whole, with `bytes` reduced by what
  /// it took; nil when the rest does not complete one.
  mutating func advance(_ queue: inout Queue, by bytes: inout Int) -> Node? {
    guard queue.first >= 0 else { return nil }
    let left = nodes[Int(queue.first)].train.recordBytes - queue.skip
    guard bytes >= left else {
      queue.skip += bytes
      bytes = 0
      return nil
    }
    bytes -= left
    return removeFirst(of: &queue)
  }
}

extension Superpacket {
  /// Bytes that its segments have as records of a stream, each with its length in front.
  var recordBytes: Int { Int(length) - (datagrams - 1) * Int(gap) + datagrams * RecordFramer.lengthBytes }
}
