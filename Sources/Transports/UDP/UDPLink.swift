import CLinux
import Glibc
import PacketIO

/// A worker's end of the UDP transport.
///
/// Sending: 1. `send` queues the trains; 2. `drain` makes each one message with UDP GSO, as long as there are free
/// messages; 3. `completeSend` returns the buffer, and has the train cut into smaller pieces where the kernel or the
/// route demands it, or sent again where an earlier packet's error has met it.
/// Receiving: 1. `completeReceive` reads sender and GRO size; 2. `classify` tells sealed packets from messages and
/// keep-alives (RFC 3948 §2.2, §2.3).
/// Errors: where a send or a receive fails, `takeErrors` looks into the socket's error queue for what is said of sizes.
@safe final class UDPLink: TransportLink {
  private enum Kind: UInt8 {
    case receive4, receive6, send, sendAgain, message, keepAlive
    case cancellation = 0xFF

    /// What a send of this kind carries.
    var carries: UDPFigures.Content {
      switch self {
      case .keepAlive: .keepAlive
      case .message: .message
      case .send, .sendAgain, .receive4, .receive6, .cancellation: .packets
      }
    }
  }

  /// Sends in flight at most; each holds a buffer of the pool, or shares one.
  private static let messageCapacity = 512
  /// Datagrams that one send may carry: Linux's UDP_MAX_SEGMENTS, and what it was before Linux 6.10.
  private static let segments = 128
  private static let segmentsOfOldKernels = 64
  /// Errors that are taken from a socket's queue at a time.
  private static let errorsAtOnce = 256
  /// The one byte of a keep-alive (RFC 3948 §2.3).
  private static let keepAliveByte: UInt8 = 0xFF

  private let index: UInt8
  let owner: UInt8
  private let socket4: UDPSocket?
  private let socket6: UDPSocket?
  private let receiver4: Receiver?
  private let receiver6: Receiver?
  private var sends: MessageTable
  private var waiting: TrainQueue
  /// As far as sends have taught: 1 where the route cannot segment at all.
  private var segmentLimit = UDPLink.segments
  /// Holds a keep-alive; behind it is room for errors.
  private let keepAliveBuffer: BufferID
  /// What this machine's own link has refused last.
  private var ownRefusal: SizeRefusal?
  /// Errors from outside that no send is known to have met.
  private var foreignErrors = 0

  private var figures = UDPFigures()

  init(
    socket4: UDPSocket?, socket6: UDPSocket?, index: UInt8, receiveBuffers: Int, io: inout WorkerIO
  ) throws(SystemError) {
    // What can fail comes first: nothing is left behind then.
    guard let buffer = io.pool.take() else {
      throw SystemError("take a packet buffer", errno: ENOBUFS, remedy: "give the worker more buffers")
    }
    self.index = index
    let owner = io.claimOwner()
    self.owner = owner
    self.socket4 = socket4
    self.socket6 = socket6
    receiver4 = socket4.map {
      Receiver(
        $0.descriptor, kind: .message, group: io.claimBufferGroup(), capacity: receiveBuffers,
        token: Token(owner: owner, kind: Kind.receive4), io: &io)
    }
    receiver6 = socket6.map {
      Receiver(
        $0.descriptor, kind: .message, group: io.claimBufferGroup(), capacity: receiveBuffers,
        token: Token(owner: owner, kind: Kind.receive6), io: &io)
    }
    keepAliveBuffer = buffer
    io.pool.bytes(buffer)[BufferPool.headroom] = UDPLink.keepAliveByte
    sends = MessageTable(capacity: UDPLink.messageCapacity)
    // A waiting train holds a buffer, so no more can wait than there are.
    waiting = TrainQueue(capacity: io.pool.count)
    receiver4?.rearm(io: &io)
    receiver6?.rearm(io: &io)
  }

  // MARK: Sending

  func send(_ batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count {
      enqueue(TrainQueue.Entry(train: batch[index], segmentLimit: UDPLink.segments), io: &io)
    }
    batch.removeAll()
    drain(io: &io)
  }

  func send(messages batch: inout PacketBatch, io: inout WorkerIO) {
    for index in 0..<batch.count {
      let message = batch[index].marked(in: io.pool)
      enqueue(TrainQueue.Entry(train: message, segmentLimit: 1, isMessage: true), io: &io)
    }
    batch.removeAll()
    drain(io: &io)
  }

  /// Takes over the train's reference.
  private func enqueue(_ entry: TrainQueue.Entry, io: inout WorkerIO) {
    guard !waiting.append(entry) else { return }
    if entry.isMessage { figures.messagesFailed &+= 1 } else { figures.sendQueueFull &+= UInt64(entry.train.datagrams) }
    io.pool.release(entry.train.buffer)
  }

  /// Sends what waits, until no message is free.
  private func drain(io: inout WorkerIO) {
    while let entry = waiting.first {
      let most = Int32(min(entry.segmentLimit, segmentLimit))
      var rest = entry.train
      while rest.length > 0 {
        var piece = rest
        piece.length = min(rest.length, rest.segmentSize * most)
        let kind: Kind = entry.isMessage ? .message : entry.isAgain ? .sendAgain : .send
        guard submit(piece, kind, io: &io) else { return waiting.replaceFirst(rest) }
        rest.offset += piece.length
        rest.length -= piece.length
      }
      waiting.removeFirst()
      io.pool.release(entry.train.buffer)
    }
  }

  /// One message for all of `train`; it holds a reference of its own. False when no message is free.
  private func submit(_ train: Superpacket, _ kind: Kind, io: inout WorkerIO) -> Bool {
    guard let receiver = train.path.endpoint.address.isV4 ? receiver4 : receiver6 else {
      figures.countFailed(kind.carries, train.datagrams, EAFNOSUPPORT)
      io.report(.failed(EAFNOSUPPORT), train.path)
      return true
    }
    guard let send = sends.take(train) else { return false }
    io.pool.retain(train.buffer)
    sends.submit(send, receiver.file, token: Token(owner: owner, kind: kind, value: send), io: &io)
    return true
  }

  private func completeSend(_ kind: Kind, _ completion: Completion, io: inout WorkerIO) {
    let train = sends.give(completion.token.value)
    defer { drain(io: &io) }
    guard completion.result < 0 else {
      figures.countSent(kind.carries, train.datagrams)
      return io.pool.release(train.buffer)
    }
    let error = -completion.result
    if train.datagrams > 1, SendControl.cannotSegment(error) {
      return enqueue(TrainQueue.Entry(train: train, segmentLimit: smallerPieces(train, error)), io: &io)
    }
    if UDPSocket.mayBeEarlier(error) {
      takeErrors(train.path.endpoint.address.isV4 ? socket4 : socket6, io: &io)
      if kind == .send || (kind == .sendAgain && (UDPSocket.isEarlier(error) || takeForeignError())) {
        return enqueue(TrainQueue.Entry(train: train, segmentLimit: UDPLink.segments, isAgain: true), io: &io)
      }
      // Datagram by datagram: the last one may fit, and for the others the kernel says what would.
      if kind == .sendAgain, error == EMSGSIZE, train.datagrams > 1 {
        return enqueue(TrainQueue.Entry(train: train, segmentLimit: 1, isAgain: true), io: &io)
      }
    }
    io.pool.release(train.buffer)
    guard error != ECANCELED else { return }
    figures.countFailed(kind.carries, train.datagrams, error)
    if error == EMSGSIZE, let refusal = ownRefusal, refusal.endpoint.address == train.path.endpoint.address,
      Int(train.segmentSize) + UDPTransport.overhead(train.path) > refusal.size
    {
      io.report(.refused(over: refusal.size, quote: nil), train.path)
    } else {
      io.report(.failed(error), train.path)
    }
  }

  /// Whether an error that came from outside may be what a send has met; each can meet one only. So nobody outside can have
  /// packets lost by errors about others, however many he sends.
  private func takeForeignError() -> Bool {
    guard foreignErrors > 0 else { return false }
    foreignErrors -= 1
    return true
  }

  /// Passes on what routers have said of packets' sizes, and remembers what this machine has: a send that fails by it tells
  /// the path.
  private func takeErrors(_ socket: UDPSocket?, io: inout WorkerIO) {
    let room = io.pool.bytes(keepAliveBuffer).slice(BufferPool.headroom + 64, UDPSocket.errorRoom)
    var refusal: SizeRefusal?
    for _ in 0..<UDPLink.errorsAtOnce {
      guard socket?.takeError(room, &refusal) == true else { return }
      if refusal?.quote != nil || refusal == nil { foreignErrors = min(foreignErrors + 1, UDPLink.errorsAtOnce) }
      guard let refusal else { continue }
      if let quote = refusal.quote {
        figures.sizeMessages &+= 1
        io.report(
          .refused(over: refusal.size, quote: quote), Path(transport: index, endpoint: refusal.endpoint))
      } else {
        ownRefusal = refusal
      }
    }
  }

  /// Into how many datagrams a refused train is to be cut.
  private func smallerPieces(_ train: Superpacket, _ error: Int32) -> Int {
    if error == EIO {
      // The route's device cannot complete checksums, so it cannot segment either.
      segmentLimit = 1
    } else if train.datagrams > UDPLink.segmentsOfOldKernels {
      segmentLimit = min(segmentLimit, UDPLink.segmentsOfOldKernels)
    } else {
      // This train cannot be segmented; others may.
      return 1
    }
    return segmentLimit
  }

  func overhead(_ path: Path) -> Int? { UDPTransport.overhead(path) }

  func keepAlive(_ path: Path, io: inout WorkerIO) {
    let packet = Superpacket(
      buffer: keepAliveBuffer, offset: BufferPool.headroom, length: 1, segmentSize: 1, path: path)
    if !submit(packet, .keepAlive, io: &io) { figures.keepAlivesFailed &+= 1 }
  }

  // MARK: Receiving

  func complete(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    guard let kind = Kind(rawValue: completion.token.kind) else { return }
    switch kind {
    case .send, .sendAgain, .message, .keepAlive: completeSend(kind, completion, io: &io)
    case .receive4: completeReceive(receiver4, socket4, completion, io: &io, received: &received, messages: &messages)
    case .receive6: completeReceive(receiver6, socket6, completion, io: &io, received: &received, messages: &messages)
    case .cancellation: break
    }
  }

  private func completeReceive(
    _ receiver: Receiver?, _ socket: UDPSocket?, _ completion: Completion, io: inout WorkerIO,
    received: inout PacketBatch, messages: inout PacketBatch
  ) {
    guard let receiver else { return }
    var error: Int32 = 0
    if let message = receiver.accept(completion, io: &io, error: &error) {
      accept(message, io: &io, received: &received, messages: &messages)
      io.pool.release(message.buffer)
    }
    if error != 0 {
      // Errors of earlier sends surface here too (an unreachable port, for one); the socket goes on.
      figures.receiveErrors.count(error, 1)
      takeErrors(socket, io: &io)
    }
  }

  /// Appends what is sealed, and messages; each entry takes a reference of its own.
  private func accept(
    _ message: Receiver.Received, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    let bytes = io.pool.bytes(message.buffer)
    guard message.length > 0 else {
      figures.receivedDatagrams &+= 1
      figures.tooShort &+= 1
      return
    }
    guard !message.truncated,
      let endpoint = SocketName.endpoint(bytes.slice(message.nameOffset, message.nameLength))
    else {
      figures.receivedDatagrams &+= 1
      figures.truncated &+= 1
      return
    }
    let control = bytes.slice(message.controlOffset, message.controlLength)
    let ancillary = ReceivedMessage.ancillary(control)
    figures.receivedTrains &+= 1
    classify(
      Superpacket(
        buffer: message.buffer, offset: message.offset, length: message.length,
        segmentSize: ancillary.segmentSize ?? message.length, path: Path(transport: index, endpoint: endpoint),
        trafficClass: ancillary.trafficClass),
      io: &io, received: &received, messages: &messages)
  }

  /// Passes on runs of sealed packets; what is not sealed lies between runs.
  func classify(
    _ train: Superpacket, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    let bytes = train.bytes(in: io.pool)
    var runStart = 0
    for segment in train.segments() {
      figures.receivedDatagrams &+= 1
      guard segment.length < Superpacket.markerLength || bytes.loadNative(segment.start, as: UInt32.self) == 0 else {
        continue
      }
      pass(train, from: runStart, to: segment.start, io: &io, received: &received)
      runStart = segment.start + segment.length
      if segment.length == 1, bytes[segment.start] == UDPLink.keepAliveByte {
        figures.keepAlivesReceived &+= 1
      } else if segment.length >= Superpacket.markerLength {
        pass(message: train, segment, io: &io, messages: &messages)
      } else {
        figures.tooShort &+= 1
      }
    }
    pass(train, from: runStart, to: bytes.count, io: &io, received: &received)
  }

  /// Passes on what follows the four zero bytes in the place of the SPI (RFC 3948 §2.2).
  private func pass(
    message train: Superpacket, _ segment: Segment, io: inout WorkerIO, messages: inout PacketBatch
  ) {
    guard segment.length > Superpacket.markerLength, !messages.isFull else {
      figures.messagesIgnored &+= 1
      return
    }
    var message = train
    message.offset += Int32(segment.start + Superpacket.markerLength)
    message.length = Int32(segment.length - Superpacket.markerLength)
    message.segmentSize = message.length
    io.pool.retain(train.buffer)
    messages.append(message)
    figures.messagesReceived &+= 1
  }

  private func pass(
    _ train: Superpacket, from start: Int, to end: Int, io: inout WorkerIO, received: inout PacketBatch
  ) {
    guard end > start else { return }
    var run = train
    run.offset += Int32(start)
    run.length = Int32(end - start)
    io.pool.retain(train.buffer)
    if !received.tryAppend(run) {
      io.pool.release(train.buffer)
      figures.receiveQueueFull &+= UInt64(run.datagrams)
    }
  }

  // MARK: Turn and end

  func endTurn(io: inout WorkerIO) {
    receiver4?.rearm(io: &io)
    receiver6?.rearm(io: &io)
  }

  func counters() -> [TransportCounter] { figures.counters }

  func close(io: inout WorkerIO) {
    while let entry = waiting.first {
      io.pool.release(entry.train.buffer)
      waiting.removeFirst()
    }
    io.pool.release(keepAliveBuffer)
    receiver4?.close(io: &io)
    receiver6?.close(io: &io)
    socket4?.close()
    socket6?.close()
  }
}
