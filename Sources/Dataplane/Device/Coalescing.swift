package import PacketIO

/// A piece of a packet, somewhere in a pool buffer.
package struct Slice: BitwiseCopyable {
  package var buffer: BufferID
  package var offset: Int32
  package var length: Int32
  /// The next piece of the same delivery; -1 at the end.
  package var next: Int32
}

/// What is to be written to the TUN device in one piece: a packet, or many of a flow as one superpacket.
package struct Delivery: BitwiseCopyable {
  /// The chain of pieces; the first begins with the packet's headers.
  package var firstSlice: Int32
  var lastSlice: Int32
  package var sliceCount: Int32
  /// Bytes of all pieces.
  package var length: Int32
  /// Packets merged.
  package var packets: Int32
  /// IP and transport headers.
  package var headerLength: Int32
  /// Payload bytes of each segment but the last.
  package var segmentSize: Int32
  package var offload: Offload

  /// The row of the peer that sent it.
  var peer: Int32
  var transportOffset: Int32
  var transport: UInt8
  var isV4: Bool
  /// The first packet's checksums were found right.
  var verified: Bool
  /// A segment had PSH set.
  var pushed: Bool
  /// Nothing more may be appended.
  var closed: Bool
  /// TCP: the sequence number that continues the superpacket.
  var nextSequence: UInt32
}

/// Merges packets of one flow into superpackets for the TUN device, the way a network card's receive offload does:
/// only what the kernel would cut into the very same packets again.
///
/// The inner checksums, of IPv4 header and transport, are verified before a packet joins another: a superpacket's are
/// made anew, so wrong ones would be repaired silently.
package struct Coalescer: ~Copyable {
  /// Flows that grow at the same time; a new one closes the oldest.
  private static let openFlows = 8
  private static let flagPush: UInt8 = 0x08
  /// ACK, with or without PSH and ECE.
  private static let mergeableFlags: UInt8 = 0x10

  package private(set) var deliveries: FixedArray<Delivery>
  package private(set) var slices: FixedArray<Slice>
  private var open: FixedArray<Int32>
  /// Of each open flow, what a packet of it must have: tells most others apart without a look at its delivery.
  private var marks: FixedArray<UInt32>
  private var oldest = 0
  /// Where the flow of the last packet grows: the next one is mostly of the same.
  private var latest = 0
  private let offloads: TunOffloads

  /// - Parameter capacity: packets of a batch at most.
  package init(capacity: Int, offloads: TunOffloads) {
    deliveries = FixedArray(capacity: capacity)
    slices = FixedArray(capacity: capacity)
    open = FixedArray(repeating: -1, count: Coalescer.openFlows)
    marks = FixedArray(repeating: 0, count: Coalescer.openFlows)
    self.offloads = offloads
  }

  /// Packets that still fit.
  var room: Int { min(deliveries.capacity &- deliveries.count, slices.capacity &- slices.count) }

  /// Takes one opened packet at `offset` of `buffer`. Adds a reference to the buffer for each slice.
  @inline(__always)
  mutating func add(_ packet: InnerPacket, buffer: BufferID, offset: Int, peer: Int32 = 0, pool: BufferPool) {
    let bytes = pool.bytes(buffer).slice(offset, packet.length)
    if let index = plainContinuation(packet, bytes, pool),
      join(
        deliveries[index].headerLength, packet, bytes, buffer: buffer, offset: offset, into: index, pool: pool)
    {
      return
    }
    let candidate = candidate(packet, bytes)
    if packet.transport == IPProtocol.tcp || packet.transport == IPProtocol.udp {
      let mark = Coalescer.mark(packet, bytes)
      for distance in 0..<Coalescer.openFlows {
        let place = (latest &+ distance) & (Coalescer.openFlows &- 1)
        guard marks[place] == mark else { continue }
        let index = Int(open[place])
        guard index >= 0, sameFlow(deliveries[index], packet, bytes, pool) else { continue }
        latest = place
        if let candidate, merge(candidate, packet, bytes, buffer: buffer, offset: offset, into: index, pool: pool) {
          return
        }
        open[place] = -1
        begin(candidate, packet, buffer: buffer, offset: offset, peer: peer, place: place, pool: pool)
        return
      }
    }
    var place: Int?
    if candidate != nil {
      place = oldest
      latest = oldest
      oldest = (oldest &+ 1) & (Coalescer.openFlows &- 1)
    }
    begin(candidate, packet, buffer: buffer, offset: offset, peer: peer, place: place, pool: pool)
  }

  /// Completes the headers of all superpackets. Call once before `deliveries` are sent.
  mutating func finish(pool: BufferPool) {
    for index in 0..<deliveries.count where deliveries[index].packets > 1 { writeHeaders(index, pool: pool) }
    for place in 0..<Coalescer.openFlows { open[place] = -1 }
  }

  /// Gives up a delivery before it is finished: its slices go at once, itself with `removeDiscarded`.
  mutating func discard(_ index: Int, pool: BufferPool) {
    var slice = deliveries[index].firstSlice
    while slice >= 0 {
      pool.release(slices[Int(slice)].buffer)
      slice = slices[Int(slice)].next
    }
    deliveries[index].firstSlice = -1
  }

  /// Closes the gaps that discarded deliveries have left. Call before `finish`; nothing may be added in between.
  mutating func removeDiscarded() {
    var kept = 0
    for index in 0..<deliveries.count where deliveries[index].firstSlice >= 0 {
      if kept < index { deliveries[kept] = deliveries[index] }
      kept &+= 1
    }
    while deliveries.count > kept { _ = deliveries.popLast() }
  }

  /// Forgets what was sent; the slices' references have passed to whoever sends them.
  package mutating func removeAll() {
    deliveries.removeAll()
    slices.removeAll()
  }

  // MARK: Joining

  /// What a packet must have to begin or join a superpacket.
  private struct Candidate: BitwiseCopyable {
    var headerLength: Int
    var payloadLength: Int
    var flags: UInt8
  }

  @inline(__always)
  private func candidate(_ packet: InnerPacket, _ bytes: PacketBytes) -> Candidate? {
    let offset = packet.transportOffset
    guard !packet.isFragment, offset == (packet.isV4 ? 20 : 40) else { return nil }
    switch packet.transport {
    case IPProtocol.tcp:
      guard offloads.contains(packet.isV4 ? .tcp4 : .tcp6), packet.length >= offset &+ 20 else { return nil }
      let headerLength = offset &+ Int(bytes[offset &+ 12] >> 4) &* 4
      let flags = bytes[offset &+ 13]
      // CWR, URG, SYN, RST and FIN mark packets that must arrive as they are.
      guard headerLength >= offset &+ 20, packet.length > headerLength, flags & 0xB7 == Coalescer.mergeableFlags else {
        return nil
      }
      return Candidate(headerLength: headerLength, payloadLength: packet.length &- headerLength, flags: flags)
    case IPProtocol.udp:
      guard offloads.contains(packet.isV4 ? .udp4 : .udp6), packet.length > offset &+ 8,
        Int(bytes.load16(offset &+ 4)) == packet.length &- offset, bytes.load16(offset &+ 6) != 0
      else { return nil }
      return Candidate(headerLength: offset &+ 8, payloadLength: packet.length &- offset &- 8, flags: 0)
    default:
      return nil
    }
  }

  /// Equal for packets of one flow, different for most others.
  @inline(__always)
  private static func mark(_ packet: InnerPacket, _ bytes: PacketBytes) -> UInt32 {
    guard packet.length >= packet.transportOffset &+ 4 else { return 0 }
    let addresses = packet.isV4 ? bytes.load64(12) : bytes.load64(16) ^ bytes.load64(32)
    let mixed = (addresses ^ UInt64(bytes.load32(packet.transportOffset))) &* 0x9E37_79B9_7F4A_7C15
    return UInt32(truncatingIfNeeded: mixed &>> 32)
  }

  /// Same addresses, protocol and ports, whatever options or extension headers the packet has: it must not be
  /// overtaken by later ones that join the delivery.
  @inline(__always)
  private func sameFlow(_ delivery: Delivery, _ packet: InnerPacket, _ bytes: PacketBytes, _ pool: BufferPool) -> Bool {
    guard delivery.isV4 == packet.isV4, delivery.transport == packet.transport,
      packet.isFirstFragment, packet.length >= packet.transportOffset &+ 4
    else { return false }
    let first = head(delivery, pool)
    guard first.load32(Int(delivery.transportOffset)) == bytes.load32(packet.transportOffset) else { return false }
    return packet.isV4
      ? first.load64(12) == bytes.load64(12)
      : first.load64(8) == bytes.load64(8) && first.load64(16) == bytes.load64(16)
        && first.load64(24) == bytes.load64(24) && first.load64(32) == bytes.load64(32)
  }

  /// The first packet of a delivery; until `finish`, with its own headers.
  @inline(__always)
  func head(_ delivery: Delivery, _ pool: BufferPool) -> PacketBytes {
    let slice = slices[Int(delivery.firstSlice)]
    return pool.bytes(slice.buffer).slice(Int(slice.offset), Int(slice.length))
  }

  @inline(__always)
  private mutating func begin(
    _ candidate: Candidate?, _ packet: InnerPacket, buffer: BufferID, offset: Int, peer: Int32, place: Int?,
    pool: BufferPool
  ) {
    let slice = Int32(truncatingIfNeeded: slices.count)
    let length = Int32(truncatingIfNeeded: packet.length)
    slices.append(Slice(buffer: buffer, offset: Int32(truncatingIfNeeded: offset), length: length, next: -1))
    pool.retain(buffer)
    var delivery = Delivery(
      firstSlice: slice, lastSlice: slice, sliceCount: 1, length: length, packets: 1, headerLength: 0, segmentSize: 0,
      offload: Offload(), peer: peer, transportOffset: Int32(truncatingIfNeeded: packet.transportOffset),
      transport: packet.transport, isV4: packet.isV4, verified: false, pushed: false, closed: true, nextSequence: 0)
    if let candidate {
      delivery.headerLength = Int32(truncatingIfNeeded: candidate.headerLength)
      delivery.segmentSize = Int32(truncatingIfNeeded: candidate.payloadLength)
      delivery.closed = false
      delivery.pushed = candidate.flags & Coalescer.flagPush != 0
      if packet.transport == IPProtocol.tcp {
        let sequence = pool.bytes(buffer).load32(offset &+ packet.transportOffset &+ 4)
        delivery.nextSequence = sequence &+ UInt32(truncatingIfNeeded: candidate.payloadLength)
      }
      if let place {
        open[place] = Int32(truncatingIfNeeded: deliveries.count)
        marks[place] = Coalescer.mark(packet, pool.bytes(buffer).slice(offset, packet.length))
      }
    }
    deliveries.append(delivery)
  }

  /// The superpacket that the packet before has joined, if this one plainly continues it: TCP data with all headers as
  /// expected. What is less plain is looked at closely; this only finds the usual case with few comparisons.
  @inline(__always)
  private func plainContinuation(_ packet: InnerPacket, _ bytes: PacketBytes, _ pool: BufferPool) -> Int? {
    let index = Int(open[latest])
    guard index >= 0, packet.transport == IPProtocol.tcp, deliveries[index].transport == IPProtocol.tcp,
      !deliveries[index].closed, packet.isV4 == deliveries[index].isV4,
      isRoom(packet.length &- Int(deliveries[index].headerLength), in: index)
    else { return nil }
    let slice = slices[Int(deliveries[index].firstSlice)]
    let first = pool.bytes(slice.buffer).slice(Int(slice.offset), Int(deliveries[index].headerLength))
    let options: Int
    if packet.isV4 {
      guard first.count >= 40, bytes.count >= 40 else { return nil }
      // All but length and identification, which means nothing with DF set (RFC 6864 §4.1), and the checksum.
      guard (first.load64(0) ^ bytes.load64(0)) & 0xFFFF_0000_0000_FFFF == 0, first.load16(6) & 0x4000 != 0,
        (first.load64(8) ^ bytes.load64(8)) & 0xFFFF_0000_FFFF_FFFF == 0, first.load64(16) == bytes.load64(16),
        bytes.load32(24) == deliveries[index].nextSequence, first.load32(28) == bytes.load32(28),
        (first.load32(32) ^ bytes.load32(32)) & 0xFFF7_FFFF == 0
      else { return nil }
      options = 40
    } else {
      guard first.count >= 60, bytes.count >= 60 else { return nil }
      guard (first.load64(0) ^ bytes.load64(0)) & 0xFFFF_FFFF_0000_FFFF == 0, first.load64(8) == bytes.load64(8),
        first.load64(16) == bytes.load64(16), first.load64(24) == bytes.load64(24),
        first.load64(32) == bytes.load64(32), first.load32(40) == bytes.load32(40),
        bytes.load32(44) == deliveries[index].nextSequence, first.load32(48) == bytes.load32(48),
        (first.load32(52) ^ bytes.load32(52)) & 0xFFF7_FFFF == 0
      else { return nil }
      options = 60
    }
    guard first.count == options || first.dropFirst(options).equals(bytes.slice(options, first.count &- options)) else {
      return nil
    }
    return index
  }

  /// Whether so many bytes of payload may be the next segment of a superpacket.
  @inline(__always)
  private func isRoom(_ payloadLength: Int, in index: Int) -> Bool {
    payloadLength > 0 && payloadLength <= Int(deliveries[index].segmentSize)
      && Int(deliveries[index].length) &+ payloadLength <= 0xFFFF && deliveries[index].packets < 64
  }

  /// Appends the packet to a superpacket of its flow; false when it does not continue it exactly.
  @inline(__always)
  private mutating func merge(
    _ candidate: Candidate, _ packet: InnerPacket, _ bytes: PacketBytes, buffer: BufferID, offset: Int, into index: Int,
    pool: BufferPool
  ) -> Bool {
    let delivery = deliveries[index]
    guard !delivery.closed, candidate.headerLength == Int(delivery.headerLength),
      isRoom(candidate.payloadLength, in: index), sameHeaders(delivery, head(delivery, pool), bytes, candidate)
    else { return false }
    return join(delivery.headerLength, packet, bytes, buffer: buffer, offset: offset, into: index, pool: pool)
  }

  /// Appends the payload of a packet whose headers continue a superpacket; false when a checksum is wrong.
  @inline(__always)
  private mutating func join(
    _ headerLength: Int32, _ packet: InnerPacket, _ bytes: PacketBytes, buffer: BufferID, offset: Int, into index: Int,
    pool: BufferPool
  ) -> Bool {
    if !deliveries[index].verified {
      let length = Int(headerLength) &+ Int(deliveries[index].segmentSize)
      guard Coalescer.areChecksumsRight(head(deliveries[index], pool).slice(0, length), packet) else { return false }
      deliveries[index].verified = true
    }
    guard Coalescer.areChecksumsRight(bytes, packet) else { return false }

    let slice = Int32(truncatingIfNeeded: slices.count)
    let payloadLength = Int32(truncatingIfNeeded: packet.length) &- headerLength
    slices.append(
      Slice(
        buffer: buffer, offset: Int32(truncatingIfNeeded: offset) &+ headerLength, length: payloadLength, next: -1))
    pool.retain(buffer)
    slices[Int(deliveries[index].lastSlice)].next = slice
    deliveries[index].lastSlice = slice
    deliveries[index].sliceCount &+= 1
    deliveries[index].packets &+= 1
    deliveries[index].length &+= payloadLength
    deliveries[index].nextSequence &+= UInt32(truncatingIfNeeded: payloadLength)
    if payloadLength < deliveries[index].segmentSize { deliveries[index].closed = true }
    if packet.transport == IPProtocol.tcp, bytes[packet.transportOffset &+ 13] & Coalescer.flagPush != 0 {
      deliveries[index].pushed = true
    }
    return true
  }

  /// Whether the two headers differ only where segmentation makes them differ.
  @inline(__always)
  private func sameHeaders(
    _ delivery: Delivery, _ first: PacketBytes, _ bytes: PacketBytes, _ candidate: Candidate
  ) -> Bool {
    if delivery.isV4 {
      // Version, header length and TOS; flags; TTL and protocol.
      guard first.load16(0) == bytes.load16(0), first.load16(6) == bytes.load16(6), first.load16(8) == bytes.load16(8)
      else { return false }
      // Without DF the identification must be what cutting would give; with it, it means nothing (RFC 6864 §4.1).
      let expected = first.load16(4) &+ UInt16(truncatingIfNeeded: delivery.packets)
      guard first.load16(6) & 0x4000 != 0 || bytes.load16(4) == expected else { return false }
    } else {
      guard first.load32(0) == bytes.load32(0), first.load16(6) == bytes.load16(6) else { return false }
    }
    guard delivery.transport == IPProtocol.tcp else { return true }
    let transport = Int(delivery.transportOffset)
    // Sequence continues; acknowledgement, flags but PSH, window and options are the same.
    guard bytes.load32(transport &+ 4) == delivery.nextSequence,
      first.load32(transport &+ 8) == bytes.load32(transport &+ 8),
      (first.load32(transport &+ 12) ^ bytes.load32(transport &+ 12)) & 0xFFF7_FFFF == 0
    else { return false }
    let options = transport &+ 20
    return first.slice(options, candidate.headerLength &- options)
      .equals(bytes.slice(options, candidate.headerLength &- options))
  }

  @inline(__always)
  private static func areChecksumsRight(_ packet: PacketBytes, _ parsed: InnerPacket) -> Bool {
    // Only headers without options come here.
    if parsed.isV4, !Checksum.isRight(Checksum.sum(packet.slice(0, 20))) { return false }
    return Checksum.isTransportRight(packet, parsed)
  }

  // MARK: Finishing

  /// Makes the first packet's headers those of the superpacket, with a partial checksum.
  private mutating func writeHeaders(_ index: Int, pool: BufferPool) {
    let delivery = deliveries[index]
    let first = head(delivery, pool)
    let transport = Int(delivery.transportOffset)
    let length = Int(delivery.length)
    if delivery.isV4 {
      first.store16(UInt16(truncatingIfNeeded: length), 2)
      Checksum.setIPv4Header(first, length: transport)
    } else {
      first.store16(UInt16(truncatingIfNeeded: length &- 40), 4)
    }
    let checksumOffset: Int
    let segmentation: Offload.Segmentation
    if delivery.transport == IPProtocol.tcp {
      if delivery.pushed { first[transport &+ 13] |= Coalescer.flagPush }
      checksumOffset = 16
      segmentation = delivery.isV4 ? .tcp4 : .tcp6
    } else {
      first.store16(UInt16(truncatingIfNeeded: length &- transport), transport &+ 4)
      checksumOffset = 6
      segmentation = .udp
    }
    let pseudo = Checksum.pseudoHeader(
      first, isV4: delivery.isV4, protocolNumber: delivery.transport, length: length &- transport)
    first.store16(Checksum.fold(pseudo), transport &+ checksumOffset)
    deliveries[index].offload = Offload(
      segmentation: segmentation, needsChecksum: true, checksumStart: UInt16(truncatingIfNeeded: transport),
      checksumOffset: UInt16(truncatingIfNeeded: checksumOffset))
  }
}
