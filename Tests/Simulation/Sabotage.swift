/// What a test breaks on purpose, so that it is seen to be found.
enum Sabotage: String, CaseIterable {
  /// Gateways forget what they have accepted.
  case acceptsTwice
  /// Some datagrams get to another gateway than they should.
  case deliversElsewhere
  /// A device loses packets that nobody counts.
  case losesDelivery
  /// Some packets are not what was sent.
  case altersDelivery
  /// A gateway holds a buffer for good.
  case leaksBuffer
  /// A gateway does not judge.
  case forgetsFirewall
  /// A gateway that was started anew begins with sequence number 1 again.
  case repeatsNumbers
  /// A relay loses packets that it does not count.
  case relayLosesPackets
  /// A relay takes one hairpin for another.
  case relayConfusesHairpins
  /// A relay takes whoever speaks to a port for its gateway.
  case relayServesAnybody

  var ofRelay: HairpinRelay.Sabotage? {
    switch self {
    case .relayLosesPackets: .losesPackets
    case .relayConfusesHairpins: .confusesHairpins
    case .relayServesAnybody: .servesAnybody
    default: nil
    }
  }
}
