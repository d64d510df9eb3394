import PacketIO
import Transports

/// The identity relay's port, which all enrolled gateways share: what comes there, in order.
///
/// 1. `take` cuts a train where what is to become of it changes: sealed packets under one SPI stay together, and are
///    decided about once. 2. Each run is staged to where its SPI leads. 3. Packets of a handshake pass one by one, as
///    `IdentityRelay.observe` has it. 4. Messages to the relay itself are answered.
enum SharedPorts {
  /// Packets of one train that are treated alike.
  private struct Run {
    /// As `RelayTable` has it; zero: there is none.
    var key: UInt32 = 0
    var start = 0
    var end = 0
    var packets: UInt64 = 0
    var route = IdentityRelay.Route.unknown(.malformed, side: nil)
  }

  // MARK: 1. What comes

  /// Takes a completion of a shared port's multishot receive.
  static func take(_ completion: Completion, _ server: inout HairpinServer) {
    let index = completion.token.value
    let message = server.engine.io.message(completion)
    if !completion.more, server.controls.indices.contains(index) { server.controls[index].isReceiving = false }
    guard let message else { return }
    if server.controls.indices.contains(index) { take(message, port: index, &server) }
    server.engine.io.pool.release(message.buffer)
  }

  static func take(_ message: RelayIO.Message, port: Int, _ server: inout HairpinServer) {
    guard !message.isTruncated else {
      server.engine.statistics[.truncated] += 1
      return
    }
    var run = Run()
    for segment in message.segments {
      let packet = message.bytes.slice(segment.start, segment.length)
      if packet.count >= IdentityRelay.leastSealed {
        let spi = packet.load32(0)
        if spi >> 4 == run.key, run.key != 0 {
          run.end = segment.start + segment.length
          run.packets += 1
          continue
        }
        if spi != 0 {
          finish(run, message, port: port, &server)
          let route = server.identities?.route(spi, from: .datagram(message.name)) ?? .unknown(.malformed, side: nil)
          run = Run(
            key: spi >> 4, start: segment.start, end: segment.start + segment.length, packets: 1, route: route)
          continue
        }
      }
      finish(run, message, port: port, &server)
      run = Run()
      takeMarked(packet, message, port: port, &server)
    }
    finish(run, message, port: port, &server)
  }

  // MARK: 2. Sealed packets

  private static func finish(_ run: Run, _ message: RelayIO.Message, port: Int, _ server: inout HairpinServer) {
    guard run.packets > 0 else { return }
    server.sharedBacklog.runs += 1
    switch run.route {
    case .unknown(let drop, let side):
      server.identities?.count(drop, run.packets)
      ask(message, port: port, side: side, drop, &server)
    case .forward(let side, let slot, let place):
      let bytes = run.end - run.start
      guard server.identities?.admits(bytes, to: side, now: server.engine.clock.monotonic) == true else {
        server.identities?.dropped(side, run.packets, .overBandwidth)
        return
      }
      let whole = ForwardBatch.Run(
        bytes: message.bytes.slice(run.start, bytes), buffer: message.buffer,
        segmentSize: min(message.segmentSize, bytes), trafficClass: message.trafficClass)
      let failed =
        switch server.identities?.places.addresses[place].exit(beside: .udp) {
        case .datagrams: stage(datagrams: whole, to: place, of: side, &server)
        case .stream(let stream): stage(whole, to: stream, &server)
        case nil: ForwardBatch.Amount(whole)
        }
      server.identities?.forwarded(side, slot, packets: run.packets, bytes: bytes, now: server.engine.clock.monotonic)
      if failed.packets > 0 { server.identities?.notTaken(side, packets: failed.packets, bytes: failed.bytes) }
    }
  }

  /// Stages datagrams to where a gateway takes them.
  /// - Parameter side: for whom they are; nil: they are no sealed packets.
  /// - Returns: what was not taken, as far as is known by now.
  static func stage(datagrams run: ForwardBatch.Run, to place: Int, of side: Int?, _ server: inout HairpinServer)
    -> ForwardBatch.Amount
  {
    guard let address = server.identities?.places.addresses[place], server.controls.indices.contains(address.port)
    else { return ForwardBatch.Amount(run) }
    if server.engine.stagedShared == nil { server.streams.flush(&server.engine) }
    // Handshakes have a number that no side has.
    let number = side.map { $0 + 1 } ?? 0
    if side == nil { server.engine.flushShared() }
    return server.engine.stage(
      run,
      to: SharedDestination(descriptor: server.controls[address.port].datagrams, name: address.name, number: number))
  }

  /// Stages them as records of a gateway's stream.
  private static func stage(_ run: ForwardBatch.Run, to stream: Int, _ server: inout HairpinServer)
    -> ForwardBatch.Amount
  {
    let now = server.engine.clock.monotonic
    let records = run.bytes.count + Int(truncatingIfNeeded: run.packets) * RecordFramer.lengthBytes
    guard server.gateways.mayTake(records, stream, now: now) else { return ForwardBatch.Amount(run) }
    server.gateways.stage(run, to: stream, &server.streams.table, now: now)
    return ForwardBatch.Amount()
  }

  /// Sends a packet of a handshake, by the path it came by or the best there is.
  static func stage(
    handshake run: ForwardBatch.Run, to place: Int, beside path: RelayPath, _ server: inout HairpinServer
  ) -> ForwardBatch.Amount {
    switch server.identities?.places.addresses[place].exit(beside: path) {
    case .datagrams:
      defer { server.engine.flushShared() }
      return stage(datagrams: run, to: place, of: nil, &server)
    case .stream(let stream): return stage(run, to: stream, &server)
    case nil: return ForwardBatch.Amount(run)
    }
  }

  /// What the kernel has not taken after all.
  static func settle(_ number: Int, _ failed: ForwardBatch.Amount, _ server: inout HairpinServer) {
    guard failed.packets > 0 else { return }
    server.identities?.notTaken(number > 0 ? number - 1 : nil, packets: failed.packets, bytes: failed.bytes)
  }

  /// Asks the sender of what was dropped who he is, if he may not know that he is not enrolled here.
  private static func ask(
    _ message: RelayIO.Message, port: Int, side: Int?, _ drop: RelayDrop, _ server: inout HairpinServer
  ) {
    guard [.unknownSPI, .senderNotEnrolled, .foreignSource].contains(drop),
      let sender = SocketName.endpoint(message.name),
      let question = server.identities?.who(
        sender, port: server.options.listen[port].port, side: side,
        length: min(message.bytes.count, message.segmentSize),
        now: server.engine.clock.monotonic)
    else { return }
    say(question, to: sender, port: port, &server)
  }

  // MARK: 3. Handshakes

  /// What stands behind four zero bytes, or is too short for a sealed packet.
  private static func takeMarked(
    _ packet: PacketBytes, _ message: RelayIO.Message, port: Int, _ server: inout HairpinServer
  ) {
    // The one byte that keeps a mapping of an address translator alive (RFC 3948 §2.3).
    if packet.count == 1, packet[0] == 0xFF { return }
    guard packet.count > Superpacket.markerLength, packet.loadNative(0, as: UInt32.self) == 0 else {
      server.identities?.count(.malformed)
      return
    }
    let unmarked = packet.dropFirst(Superpacket.markerLength)
    if HairpinMessage.isOwn(unmarked) { return answerOwn(packet, message, port: port, &server) }
    switch server.identities?.observe(unmarked, from: .datagram(message.name), server.engine.clock) {
    case .forward(let place):
      let run = ForwardBatch.Run(
        bytes: packet, buffer: message.buffer, segmentSize: packet.count, trafficClass: message.trafficClass)
      let failed = stage(handshake: run, to: place, beside: .udp, &server)
      if failed.packets > 0 { server.identities?.notTaken(nil, packets: failed.packets, bytes: failed.bytes) }
    case .drop(let drop, let answer):
      if let answer, let sender = SocketName.endpoint(message.name) {
        say(answer, to: sender, port: port, &server)
      } else {
        ask(message, port: port, side: nil, drop, &server)
      }
    case .wait, nil: break
    }
  }

  /// Sends first packets of handshakes that have waited long enough.
  static func sendDue(_ server: inout HairpinServer) {
    for (place, path, packet) in server.identities?.takeDue(server.engine.clock) ?? [] {
      guard let address = server.identities?.places.addresses[place] else { continue }
      switch address.exit(beside: path) {
      case .stream(let stream):
        server.gateways.say(packet, to: stream, &server.streams.table, now: server.engine.clock.monotonic)
      case .datagrams where server.controls.indices.contains(address.port):
        let error = UDPSocket.send(server.controls[address.port].datagrams, packet, to: address.name)
        if error != 0 { server.identities?.notTaken(nil, packets: 1, bytes: 0) }
      default: server.identities?.notTaken(nil, packets: 1, bytes: 0)
      }
    }
  }

  // MARK: 4. Messages

  private static func answerOwn(
    _ packet: PacketBytes, _ message: RelayIO.Message, port: Int, _ server: inout HairpinServer
  ) {
    guard let sender = SocketName.endpoint(message.name) else { return }
    guard packet.count <= max(HairpinMessage.mostBytes, EnrolmentMessage.mostEnrol) else {
      server.identities?.count(.malformed)
      return
    }
    let now = server.engine.clock.monotonic
    let bytes = packet.array()
    if case .hold(let nonce) = HairpinMessage(bytes) {
      if let answer = server.identities?.answerHold(nonce, from: sender, now: now) {
        say(answer, to: sender, port: port, &server)
      }
      return
    }
    guard server.identities?.admitsStranger(at: sender.address, byStream: false, now: now) == true else { return }
    if case .enrol(let enrol) = EnrolmentMessage(bytes) {
      let number = server.options.listen[port].port
      let answer = server.identities?.answer(
        enrol, bytes, from: sender, port: (port, number), server.engine.clock)
      if let answer = answer ?? nil { say(answer, to: sender, port: port, &server) }
    } else if let answer = server.answer(bytes, sender, toControl: port, .udp) {
      say(answer.bytes, to: sender, port: port, &server)
    }
  }

  private static func say(_ bytes: [UInt8], to sender: Endpoint, port: Int, _ server: inout HairpinServer) {
    _ = UDPSocket.send(server.controls[port].datagrams, bytes, to: SocketName(sender))
  }

  // MARK: Ends, policy, figures

  static func sweep(_ server: inout HairpinServer) {
    server.identities?.measure(busy: MonotonicTime.busyOfThread(), now: server.engine.clock.monotonic)
    guard let said = server.identities?.sweep(server.engine.clock) else { return }
    tell(said, &server)
  }

  /// Puts another policy in force, at once.
  static func set(_ policy: RelayPolicy, _ server: inout HairpinServer) {
    guard let said = server.identities?.set(policy, server.engine.clock) else { return }
    tell(said, &server)
  }

  private static func tell(_ said: [(place: Int, notice: [UInt8])], _ server: inout HairpinServer) {
    for (place, notice) in said {
      guard let address = server.identities?.places.addresses[place] else { continue }
      switch address.exit(beside: .udp) {
      case .datagrams: say(notice, to: address.name.endpoint, port: address.port, &server)
      case .stream(let stream):
        server.gateways.say(notice, to: stream, &server.streams.table, now: server.engine.clock.monotonic)
      case nil: break
      }
    }
  }
}
