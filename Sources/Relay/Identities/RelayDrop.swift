/// Why an identity relay has not passed something on. Each thing that came is counted under one of these, or as forwarded.
public enum RelayDrop: Int, Error, CaseIterable {
  /// Neither sealed, nor a handshake, nor a message of this protocol.
  case malformed
  /// Of a handshake: nobody has enrolled who calls itself like the sender.
  case senderNotEnrolled
  /// The sender has enrolled, and from another address than that.
  case foreignSource
  /// The receiver has not enrolled.
  case receiverNotEnrolled
  /// No rule lets the two meet, or not at this time.
  case notAllowed
  /// A handshake packet that would bind an SPI, or end something, is not signed by its sender.
  case badSignature
  /// More such packets than are looked at.
  case tooManySignatures
  /// Another pair has the SPI.
  case spiTaken
  /// As many pairs, or associations, as there is room for.
  case full
  /// It would be a new pair of a gateway that has as many as one may have.
  case tooManyPairs
  /// An I1 of a new pair, when the relay is all but full.
  case refusedBusy
  /// An I1 of a gateway to one for which another of its I1s waits, because the relay is busy.
  case waitsAlready
  /// The oldest I1 that waited, when there were too many.
  case crowdedOut
  /// Nobody has claimed the SPI.
  case unknownSPI
  /// The pair's bandwidth, or the whole relay's, is used up.
  case overBandwidth
  /// The kernel did not take it.
  case notTaken
  /// More messages of one origin than are looked at.
  case tooManyStrangers
  /// An enrolment came with a cookie that is not one of ours, or too old.
  case badCookie
  /// An enrolment of a gateway that no rule names.
  case enrolmentNotAllowed
  /// An enrolment whose signature is not that of its key.
  case enrolmentForged
  /// An enrolment older than the one that is known.
  case enrolmentOutdated
  /// More enrolments than are looked at, or than there is room for.
  case enrolmentBusy

  /// As statistics have it: "sender-not-enrolled".
  public var name: String {
    "\(self)".replacing("SPI", with: "Spi").reduce(into: "") {
      $0 += $1.isUppercase ? "-\($1.lowercased())" : String($1)
    }
  }
}

/// An identity relay's figures at one moment.
public struct RelayStatistics: Sendable, Equatable {
  /// Gateways that are enrolled now.
  public var enrolled = 0
  /// Pairs of which something is bound.
  public var pairs = 0
  /// Associations that are bound.
  public var associations = 0
  /// How busy the relay is, 0 to 1.
  public var load = 0.0
  /// Sealed packets and their bytes that were forwarded, and packets of handshakes.
  public var forwardedPackets: UInt64 = 0
  public var forwardedBytes: UInt64 = 0
  public var forwardedHandshakes: UInt64 = 0
  /// Enrolments that were taken, and signs of life that were answered.
  public var enrolments: UInt64 = 0
  public var holds: UInt64 = 0
  /// Bindings that were made, and removed because others came instead or a rule has gone.
  public var bound: UInt64 = 0
  public var unbound: UInt64 = 0
  /// Messages of this relay that say why something was refused, or ask who somebody is.
  public var notices: UInt64 = 0
  var drops = [UInt64](repeating: 0, count: RelayDrop.allCases.count)

  public init() {}

  /// How often something was dropped for that reason.
  public subscript(drop: RelayDrop) -> UInt64 {
    get { drops[drop.rawValue] }
    set { drops[drop.rawValue] = newValue }
  }

  /// One line: gateways, pairs, what was forwarded, and all reasons that occurred.
  public var line: String {
    let figures = [
      "enrolled \(enrolled)", "pairs \(pairs)", "associations \(associations)", "relayed-packets \(forwardedPackets)",
      "relayed-bytes \(forwardedBytes)", "relayed-handshakes \(forwardedHandshakes)", "enrolments \(enrolments)",
      "load-percent \(UInt8(clamping: Int(load * 100)))",
    ]
    return (figures + RelayDrop.allCases.filter { self[$0] > 0 }.map { "\($0.name) \(self[$0])" })
      .joined(separator: ", ")
  }
}
