import Glibc
import PacketIO

extension TCPLink {
  /// Packets of one run at most, as many as a UDP train has.
  private static let runSegments = 128

  func completeReceive(
    _ completion: Completion, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) {
    let place = completion.token.value
    switch reads.accept(completion, at: place, &streams, io: io) {
    case .bytes(let buffer, let count):
      if streams[place].isConnected {
        if streams.becomesOpen(place) { opened(place, io: &io) }
        take(
          StreamReads.Read(
            place: Int32(truncatingIfNeeded: place), number: streams[place].number, buffer: buffer,
            offset: RecordCarry.front, end: RecordCarry.front + count), io: &io, received: &received,
          messages: &messages)
      } else {
        io.pool.release(buffer)
      }
    case .nothing: break
    case .ended(let error): close(place, error: error, io: &io)
    }
    if streams[place].isEncrypted, streams[place].isConnected { secured(place, io: &io) }
    if streams[place].isConnected {
      if web.holdsBack(place) {
        if streams[place].isReceiving { io.ring.cancel(token(.receive, place), token: token(.cancellation, place)) }
      } else if !streams[place].isReceiving {
        reads.receive(place, &streams)
      }
    } else {
      finish(place)
    }
  }

  func take(_ read: StreamReads.Read, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch) {
    figures.receivedReads &+= 1
    let place = Int(read.place)
    if !streams[place].isEncrypted { streams[place].receivedBytes &+= read.end - read.offset }
    if bringsTooMuch(place) {
      io.pool.release(read.buffer)
      return closeUnidentified(place, io: &io)
    }
    if reads.hasBacklog {
      reads.putBack(read)
    } else if let rest = process(read, io: &io, received: &received, messages: &messages) {
      reads.putBack(rest)
    }
  }

  /// Whether it has brought more than may come before it is known whose it is.
  func bringsTooMuch(_ place: Int) -> Bool {
    streams[place].isUnauthenticated && streams[place].receivedBytes > limits.unidentifiedBytes
  }

  /// Goes on with what there was no room for.
  func resume(io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch) {
    while !received.isFull, let read = reads.firstOfBacklog {
      let rest = process(read, io: &io, received: &received, messages: &messages)
      if let rest { reads.replaceFirst(rest) } else { reads.removeFirst() }
    }
  }

  /// Passes on the read's records; takes over its reference, unless it returns what there was no room for.
  private func process(
    _ read: StreamReads.Read, io: inout WorkerIO, received: inout PacketBatch, messages: inout PacketBatch
  ) -> StreamReads.Read? {
    let place = Int(read.place)
    guard streams[place].number == read.number, streams[place].state == .open, !received.isFull else {
      if received.isFull { return read }
      io.pool.release(read.buffer)
      return nil
    }
    if web.serves(place) {
      let bytes = io.pool.bytes(read.buffer).slice(read.offset, read.end - read.offset)
      if !web.take(place, bytes, &streams, ring: &io.ring, now: io.now) { close(place, error: nil, io: &io) }
      io.pool.release(read.buffer)
      return nil
    }
    var read = read
    switch carries.join(
      &streams[place].carry, of: place, framer: streams[place].framer, buffer: read.buffer, offset: read.offset,
      end: read.end, pool: io.pool)
    {
    case .inPlace(let offset): read.offset = offset
    case .whole(let buffer, let from, let to, let offset):
      figures.assembled &+= 1
      var start = from
      _ = parse(place, buffer, &start, to, io: &io, received: &received, messages: &messages)
      io.pool.release(buffer)
      read.offset = offset
    case .taken:
      io.pool.release(read.buffer)
      return nil
    case .noRoom:
      figures.noRoom &+= 1
      close(place, error: ENOBUFS, io: &io)
    }
    if streams[place].state == .open,
      !parse(place, read.buffer, &read.offset, read.end, io: &io, received: &received, messages: &messages)
    {
      return read
    }
    io.pool.release(read.buffer)
    return nil
  }

  /// Passes on the records from `offset` to `end`, and keeps the beginning of the next. False when `received` is full.
  private func parse(
    _ place: Int, _ buffer: BufferID, _ offset: inout Int, _ end: Int, io: inout WorkerIO, received: inout PacketBatch,
    messages: inout PacketBatch
  ) -> Bool {
    let bytes = io.pool.bytes(buffer).slice(0, end)
    while true {
      guard !received.isFull else { return false }
      switch streams[place].framer.next(bytes, &offset, most: TCPLink.runSegments) {
      case .packets(let start, let length, let size, let count):
        io.pool.retain(buffer)
        received.append(
          Superpacket(
            buffer: buffer, offset: start, length: length, segmentSize: size, path: path(place),
            gap: UInt8(RecordFramer.lengthBytes)))
        figures.receivedTrains &+= 1
        figures.receivedDatagrams &+= UInt64(truncatingIfNeeded: count)
        proved(place)
      case .keepAlive:
        figures.receivedDatagrams &+= 1
        figures.keepAlives &+= 1
      case .message(let start, let length):
        figures.receivedDatagrams &+= 1
        pass(message: place, buffer, start, length, io: &io, messages: &messages)
      case .tooShort:
        figures.receivedDatagrams &+= 1
        figures.tooShort &+= 1
      case .incomplete(let needed):
        keep(place, buffer, offset, end, needed: needed, io: &io)
        return true
      case .fault(.badPrefix) where streams[place].isEncrypted:
        // Not of ours: a browser, or who looks at the port.
        if !web.begin(place, bytes.dropFirst(offset), &streams, ring: &io.ring, now: io.now) {
          close(place, error: nil, io: &io)
        }
        return true
      case .fault(let fault):
        switch fault {
        case .badPrefix: figures.badPrefix &+= 1
        case .badLength: figures.badLength &+= 1
        }
        close(place, error: EPROTO, io: &io)
        return true
      }
    }
  }

  private func pass(
    message place: Int, _ buffer: BufferID, _ offset: Int, _ length: Int, io: inout WorkerIO,
    messages: inout PacketBatch
  ) {
    guard length > 0, !messages.isFull else {
      figures.messagesIgnored &+= 1
      return
    }
    io.pool.retain(buffer)
    messages.append(
      Superpacket(buffer: buffer, offset: offset, length: length, segmentSize: length, path: path(place)))
    figures.messagesReceived &+= 1
    proved(place)
  }

  private func keep(_ place: Int, _ buffer: BufferID, _ offset: Int, _ end: Int, needed: Int, io: inout WorkerIO) {
    guard end > offset, streams[place].state == .open else { return }
    let isKept = carries.keep(
      &streams[place].carry, of: place, holder: streams[place].holder, buffer: buffer, offset: offset,
      length: end - offset, needed: needed,
      mayHold: !streams[place].isUnauthenticated, pool: io.pool)
    guard !isKept else { return }
    figures.noRoom &+= 1
    close(place, error: ENOBUFS, io: &io)
  }
}
