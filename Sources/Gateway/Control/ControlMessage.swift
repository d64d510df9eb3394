public import Dataplane
import Foundation

/// A question to a running gateway: one line of JSON, `{"request":"statistics"}`.
public struct ControlRequest: Codable, Sendable, Equatable {
  public enum Kind: String, Codable, Sendable, CaseIterable {
    /// Answered with a `GatewayReport`.
    case statistics
    /// Reads the configuration file again, as SIGHUP does; answered when it is in force.
    case reload
    /// What `address` is called on either side of each tunnel; answered with meanings.
    case map
    /// What would become of `packet`; answered with an explanation.
    case explain
    /// Packets as they pass. After the reply, which is an error or empty, the bytes of a pcapng file follow until the
    /// connection ends.
    case capture
    /// Keys of all associations, in the form tshark reads.
    case keys
  }

  public var request: Kind
  /// With `map`: an address, as text.
  public var address: String?
  /// With `explain`: an IP packet inside the tunnel, in base64.
  public var packet: String?
  /// With `capture`.
  public var capture: CaptureOptions?

  public init(
    _ request: Kind, address: String? = nil, packet: [UInt8]? = nil, capture: CaptureOptions? = nil
  ) {
    self.request = request
    self.address = address
    self.capture = capture
    self.packet = packet.map { Data($0).base64EncodedString() }
  }

  /// Bytes of the longest line that is read: the largest packet, as text.
  static let longest = 1 << 17
}

/// What a capture shall have.
public struct CaptureOptions: Codable, Sendable, Equatable {
  public var inner: Bool
  public var outer: Bool
  /// Packets; nil: until the connection ends.
  public var count: Int?
  /// Bytes kept of each packet; nil: all.
  public var snapLength: Int?
  /// Nil: all peers.
  public var peer: String?

  public init(inner: Bool, outer: Bool, count: Int? = nil, snapLength: Int? = nil, peer: String? = nil) {
    self.inner = inner
    self.outer = outer
    self.count = count
    self.snapLength = snapLength
    self.peer = peer
  }
}

/// The answer: one line of JSON with either a result or an error.
public struct ControlReply: Codable, Sendable, Equatable {
  /// What went wrong, for the operator.
  public var error: String?
  public var report: GatewayReport?
  public var meanings: [AddressMeaning]?
  public var explanation: Explanation?
  /// Lines of the file that tells tshark keys.
  public var keys: [String]?

  public init(
    error: String? = nil, report: GatewayReport? = nil, meanings: [AddressMeaning]? = nil,
    explanation: Explanation? = nil, keys: [String]? = nil
  ) {
    self.keys = keys
    self.error = error
    self.report = report
    self.meanings = meanings
    self.explanation = explanation
  }
}
