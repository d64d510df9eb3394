import PacketIO

/// A worker's end of the queues between workers: whose a packet is, and how it gets there.
package struct HandOffs {
  /// This worker's number, and how many there are.
  let worker: Int
  let workers: Int
  /// Nil where there is one worker.
  let queues: HandOffQueues?
  /// Nil while nothing depends on who has a flow's packets.
  private(set) var steering: FlowSteering?
  private let fragmentOwners = StateCell(FragmentOwners())
  /// Workers, by bits, that do not know yet of what was posted for them.
  private var untold = 0
  /// Packets and control messages that were posted.
  package private(set) var posted: UInt64 = 0

  init(worker: Int, of workers: Int, queues: HandOffQueues?) {
    self.worker = worker
    self.workers = workers
    self.queues = queues
  }

  /// - Parameter isNeeded: a flow's packets have to meet in one place.
  mutating func steer(_ isNeeded: Bool) {
    let steers = queues != nil && isNeeded
    steering =
      steers ? FlowSteering(worker: worker, mask: UInt32(workers - 1), fragments: fragmentOwners.reference) : nil
  }

  /// Who has the association that the sealed packet at `offset` names.
  @inline(__always)
  func holder(of bytes: PacketBytes, at offset: Int) -> Int {
    bytes.count &- offset >= 4 ? Int(bytes.load32(offset)) & (workers &- 1) : worker
  }

  /// Who has how much of the ways to the others; empty: there are none.
  func shares() -> [ShareReport] {
    var sum: ShareReport?
    for receiver in 0..<workers {
      guard let report = queues?.queue(from: worker, to: receiver)?.shares() else { continue }
      if sum == nil { sum = report } else { sum?.add(report) }
    }
    return sum.map { [$0] } ?? []
  }

  /// False when the way there is full.
  /// - Parameter holder: whose the packet is.
  mutating func post(
    _ handOff: HandOff, _ bytes: PacketBytes? = nil, of holder: Holder = Holder(row: -1), to receiver: Int
  ) -> Bool {
    guard queues?.queue(from: worker, to: receiver)?.post(handOff, bytes, of: holder) == true else { return false }
    untold |= 1 << receiver
    if bytes != nil { posted &+= 1 }
    return true
  }

  /// The workers that are to be woken because something waits for them, each once.
  package mutating func takeUntold() -> [Int] {
    guard untold != 0, let queues else { return [] }
    defer { untold = 0 }
    return (0..<workers).filter {
      untold & 1 << $0 != 0 && queues.queue(from: worker, to: $0)?.announce() == true
    }
  }
}

extension Superpacket {
  /// Whose it is while nothing is opened: whoever is where it came from.
  var sender: Holder { Holder(strangerAt: path.endpoint.address) }
}
