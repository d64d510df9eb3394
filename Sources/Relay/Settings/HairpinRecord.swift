public import Transports

/// What is left of a hairpin when it has ended: for the control system's books.
public struct HairpinRecord: Sendable, Equatable {
  public var ticket: HairpinNumber
  public var first: String
  public var second: String
  /// Sealed packets and bytes that came from each side and were forwarded.
  public var firstPackets: UInt64
  public var firstBytes: UInt64
  public var secondPackets: UInt64
  public var secondBytes: UInt64
  /// Packets of either side that were not forwarded: the partner was not there, or did not take them, or the kernel's
  /// queue was full because the bandwidth was used up.
  public var dropped: UInt64
  /// Seconds since 1970 UTC.
  public var started: Int64
  public var ended: Int64
  public var reason: HairpinReason

  /// One line of JSON (RFC 8259), without the line break.
  public var line: String {
    "{\"ticket\":\"\(ticket)\",\"gateways\":[\(HairpinRecord.quoted(first)),\(HairpinRecord.quoted(second))],"
      + "\"packets\":[\(firstPackets),\(secondPackets)],\"bytes\":[\(firstBytes),\(secondBytes)],"
      + "\"dropped\":\(dropped),\"started\":\(started),\"ended\":\(ended),\"reason\":\"\(reason)\"}"
  }

  private static func quoted(_ text: String) -> String {
    // Names are printable ASCII, so two characters need care.
    "\"" + text.flatMap { $0 == "\"" || $0 == "\\" ? ["\\", $0] : [$0] } + "\""
  }
}

/// What a proxy counts besides sealed packets.
public enum HairpinCounter: Int, Sendable, CaseIterable {
  /// Sealed packets and bytes that were forwarded.
  case forwardedPackets, forwardedBytes
  case hellos, challenges, accepted, proved, holds, ended
  /// Not this protocol, or out of place.
  case malformed
  /// Nothing was answered, because the cookie was not one of ours or too old.
  case badCookie
  case refusedForged, refusedExpired, refusedUsed, refusedOther
  /// More signatures than are checked in a second, of all or of one origin.
  case tooManySignatures
  /// More messages of a gateway that has proved itself than it has reason for.
  case tooManyMessages
  /// More messages of one origin, or of strangers at gateways' ports, than are answered.
  case tooManyStrangers
  /// On an allocated port, from somebody who has not proved anything.
  case stranger
  /// Sealed packets whose partner is not there.
  case noPartner
  /// Sealed packets that the partner's side did not take.
  case notTaken
  /// Messages cut by the kernel.
  case truncated
  /// Streams refused: too many that had not proved themselves, or they took too long, or sent what is no record.
  case streamsRefused, streamsTooSlow, streamsMalformed
  /// Streams closed because they took nothing of a run for a second.
  case streamsStalled
  /// Runs of records that were moved from stream to stream without being looked at.
  case runs

  /// As statistics have it: "refused-forged".
  public var name: String {
    "\(self)".reduce(into: "") { $0 += $1.isUppercase ? "-\($1.lowercased())" : String($1) }
  }
}

/// A proxy's figures at one moment.
public struct HairpinStatistics: Sendable, Equatable {
  /// Hairpins that are open, or wait for their gateways.
  public var hairpins = 0
  /// Tickets that are remembered as used.
  public var remembered = 0
  var counts = [UInt64](repeating: 0, count: HairpinCounter.allCases.count)

  public init() {}

  /// One line of all that are not zero: "hairpins 3, remembered-tickets 7, forwarded-packets 1200".
  public var line: String {
    let counted = HairpinCounter.allCases.filter { self[$0] > 0 }.map { "\($0.name) \(self[$0])" }
    return (["hairpins \(hairpins)", "remembered-tickets \(remembered)"] + counted).joined(separator: ", ")
  }

  /// One figure.
  public subscript(counter: HairpinCounter) -> UInt64 {
    get { counts[counter.rawValue] }
    set { counts[counter.rawValue] = newValue }
  }
}
