/// A path for sealed packets: what the embedder configures and hands to the dataplane.
///
/// The dataplane knows packets, keys, addresses and rules, and nothing of paths; a transport knows paths, and
/// nothing of packets. What passes between them are sealed ESP packets, the same bytes on every path. Anything
/// that can carry datagrams can be a transport; see `UDPTransport` for the one that most tunnels use.
public protocol Transport: Sendable {
  /// Opens the transport for one worker, on that worker's thread, before its first turn.
  ///
  /// - Parameters:
  ///   - worker: the worker's number, from 0.
  ///   - index: the transport's position in the embedder's list; goes into each `Path` it reports.
  ///   - io: the worker's ring and buffers. Owner numbers and buffer groups are claimed here, during this call.
  /// - Throws: `SystemError`, which ends the start of the dataplane.
  func open(worker: Int, index: UInt8, io: inout WorkerIO) throws -> any TransportLink

  /// Opens the transport for one of several workers, in the order of their numbers. A transport that all workers can
  /// use has them share its port and sees to it that a sealed packet comes to the worker whose number is the SPI's,
  /// modulo `workers`, as far as it can.
  ///
  /// - Parameter workers: 2, 4, 8 or 16.
  /// - Returns: nil where worker 0 carries everything for the others, as without an implementation of this method.
  func open(worker: Int, of workers: Int, index: UInt8, io: inout WorkerIO) throws -> (any TransportLink)?
}

extension Transport {
  /// Worker 0 alone, as where a stream has one end.
  public func open(
    worker: Int, of workers: Int, index: UInt8, io: inout WorkerIO
  ) throws -> (any TransportLink)? {
    worker == 0 ? try open(worker: worker, index: index, io: &io) : nil
  }
}

/// One worker's end of a transport. All calls come from that worker's thread, once a batch, never a packet.
public protocol TransportLink: AnyObject {
  /// Sends each superpacket as its datagrams, in order, to its `path` and in its traffic class, unfragmented. Takes
  /// over the batch's references: a buffer is released when the kernel no longer needs it. What cannot be sent is
  /// counted and dropped.
  func send(_ batch: inout PacketBatch, io: inout WorkerIO)

  /// Sends messages that are no sealed packets, as those of a key exchange: each entry is one message, without the four
  /// zero bytes that tell it from a sealed packet (RFC 3948 §2.2, RFC 9329 §3). The link writes these in front of it,
  /// into the buffer, of which nobody else may hold a reference. Takes over the references, as `send` does.
  func send(messages batch: inout PacketBatch, io: inout WorkerIO)

  /// Takes a completion that carries one of this link's owner numbers.
  ///
  /// - Parameters:
  ///   - received: sealed packets that arrived are appended here, where there is room for at least one superpacket; each
  ///     entry's reference passes to the dataplane.
  ///   - messages: what arrived behind four zero bytes is appended here, one entry a message, without these. It is full,
  ///     or has no room at all, where nobody takes messages: then they are counted and dropped.
  func complete(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch)

  /// Once a turn, after the batches: re-arms receives that ran dry of buffers.
  func endTurn(io: inout WorkerIO)

  /// Bytes that the path to `path` adds to a sealed packet to make the IP packet whose size a path may limit; nil
  /// where packets of any size get through, as on a stream.
  func overhead(_ path: Path) -> Int?

  /// Keeps the path to `path` open through address translators; on paths that need no such thing, nothing.
  func keepAlive(_ path: Path, io: inout WorkerIO)

  /// A packet that came by `path` proved authentic and moved a peer there, or answered a probe there. A transport
  /// that holds something for each path, as a stream, learns from it which of them belong to a partner; to others it
  /// means nothing.
  ///
  /// - Parameter holder: the peer; whatever the transport holds for it is to be accounted to it.
  func confirm(_ path: Path, as holder: Holder, io: inout WorkerIO)

  /// What this side has opened at `path` is not needed any more, because the peer has opened another. When something is
  /// sent there again, it is opened anew.
  func release(_ path: Path, io: inout WorkerIO)

  /// Counters since the start, by name.
  func counters() -> [TransportCounter]

  /// Who holds how much of what the transport's users share.
  func shares() -> [ShareReport]

  /// Ends all that is in flight and closes. The ring is not used again after the worker drained it.
  func close(io: inout WorkerIO)
}

extension TransportLink {
  /// As sealed packets are sent, behind the four zero bytes: right where each datagram goes for itself.
  public func send(messages batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count { batch[index] = batch[index].marked(in: io.pool) }
    send(&batch, io: &io)
  }

  /// Nothing: as where one socket serves all paths.
  public func confirm(_ path: Path, as holder: Holder, io: inout WorkerIO) {}

  /// Nothing that is worth to be shared.
  public func shares() -> [ShareReport] { [] }

  /// Nothing, likewise.
  public func release(_ path: Path, io: inout WorkerIO) {}
}

/// One figure of a transport, for statistics.
public struct TransportCounter: Sendable, Equatable, Codable {
  /// What a counter has to do with packets that go no further.
  public enum Loss: String, Sendable, Codable {
    /// Sealed packets that were handed over and not sent: all that were handed over are sent, or in one of these.
    case notSent = "not-sent"
    /// What was received and not passed on.
    case notPassedOn = "not-passed-on"
  }

  public let name: String
  public let value: UInt64
  /// Nil: it counts no losses.
  public let loss: Loss?

  public init(name: String, value: UInt64, loss: Loss? = nil) {
    self.name = name
    self.value = value
    self.loss = loss
  }
}

extension [TransportCounter] {
  /// The same, with those of these names as losses.
  package func marking(_ names: Set<String>, as loss: TransportCounter.Loss) -> [TransportCounter] {
    map { names.contains($0.name) ? TransportCounter(name: $0.name, value: $0.value, loss: loss) : $0 }
  }

  /// The sums of those that both have, and the others; a loss in either is one in the sum.
  package func adding(_ others: [TransportCounter]) -> [TransportCounter] {
    var sums = self
    for other in others {
      guard let place = sums.firstIndex(where: { $0.name == other.name }) else {
        sums.append(other)
        continue
      }
      let sum = sums[place]
      sums[place] = TransportCounter(
        name: sum.name, value: sum.value &+ other.value, loss: sum.loss ?? other.loss)
    }
    return sums
  }
}
