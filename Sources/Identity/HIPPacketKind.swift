/// The type of a HIP packet (RFC 7401 §5.3), by its number in the header.
public enum HIPPacketKind: UInt8, Sendable, CaseIterable {
  case i1 = 1, r1 = 2, i2 = 3, r2 = 4, update = 16, notify = 17, close = 18, closeAck = 19
}
