/// One reason's count.
public struct DropCount: Sendable, Equatable, Codable {
  public let reason: DropReason
  public let packets: UInt64
}
