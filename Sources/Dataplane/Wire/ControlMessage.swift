package import PacketIO

/// Messages between the two ends of a tunnel, sealed under its association like any packet and never seen by hosts.
///
/// The ESP next header is 59, so an implementation that does not know them drops them silently (RFC 4303 §2.6). The
/// payload is magic "CULV" (4 bytes), version 1, type, length of the body (2 bytes), the body, and zeros up to the
/// size the sender wants the packet to have.
package enum ControlMessage {
  package static let magic: UInt32 = 0x4355_4C56
  package static let version: UInt8 = 1
  package static let headerLength = 8
  /// Bytes of a body at most.
  package static let bodyCapacity = 1024

  /// Types 1 to 15 ask about paths and associations; 16 to 31 negotiate address spaces.
  package enum Kind {
    /// Body: see `ProbeMessage`. Answered at once, along the path it came.
    package static let probe: UInt8 = 1
    /// Body: see `ProbeReply`.
    package static let probeReply: UInt8 = 2
    /// Body: a worker's number, in one byte. Sealed under its own association, to see whether the peer has that.
    package static let association: UInt8 = 3
    /// The same body, sent back.
    package static let associationReply: UInt8 = 4
    /// Body: a `RefusalMessage`.
    package static let refusal: UInt8 = 5
    /// No body: keeps a path open, and shows where this side is now.
    package static let keepAlive: UInt8 = 6
    /// Body: an `AddressMessage`; 17 to 31 are set aside.
    package static let addresses: UInt8 = 16
    package static let firstOfNegotiation: UInt8 = 16
  }

  /// Type and body of a payload; nil when it is something else: plain padding, or a version to come.
  @inline(never)
  package static func parse(_ payload: PacketBytes) -> (type: UInt8, body: PacketBytes)? {
    guard payload.count >= headerLength, payload.load32(0) == magic, payload[4] == version else { return nil }
    let length = Int(payload.load16(6))
    guard length <= bodyCapacity, length <= payload.count &- headerLength else { return nil }
    return (payload[5], payload.slice(headerLength, length))
  }

  /// Writes a message that fills `payload`, which has room for the body.
  package static func write(type: UInt8, body: [UInt8], to payload: PacketBytes) {
    precondition(body.count <= bodyCapacity)
    payload.store32(magic, 0)
    payload[4] = version
    payload[5] = type
    payload.store16(UInt16(body.count), 6)
    payload.copy(body, to: headerLength)
    for index in headerLength + body.count..<payload.count { payload[index] = 0 }
  }
}
